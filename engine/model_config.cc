#include "engine/model_config.h"

#include <cmath>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/json_text.h"

namespace quire {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxConfigBytes = 1 << 20;

// Bounds of what one may ask for. Wide enough for every published model; narrow enough that no product of them
// overflows 64 bits.
constexpr int64_t kMaxVocab = 1 << 20;  // of the sampler
constexpr int64_t kMaxWidth = 1 << 20;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 256;
constexpr int64_t kMaxPositions = 1 << 27;

// Reads keys of one object and keeps the first error, so that the caller reads as a list of keys.
class KeyReader {
 public:
  KeyReader(const json& object, std::string where) : object_(object), where_(std::move(where)) {}

  const absl::Status& status() const { return status_; }

  // The value at `key`; nullptr where it is absent or null.
  const json* Find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  bool Has(const char* key) const { return object_.contains(key); }

  void Fail(absl::string_view key, absl::string_view found, absl::string_view allowed) {
    if (status_.ok())
      status_ = absl::InvalidArgumentError(absl::StrCat(where_, ": ", key, ": found ", found, ", allowed: ", allowed));
  }

  // An integer of [min, max]; `absent` where the key is missing or null, an error where that is nullopt.
  int32_t Int(const char* key, int64_t min, int64_t max, std::optional<int64_t> absent = std::nullopt) {
    const std::string allowed = absl::StrCat("a whole number from ", min, " to ", max);
    const json* value = Find(key);
    if (value == nullptr) {
      if (!absent.has_value()) Fail(key, "none", allowed);
      return static_cast<int32_t>(absent.value_or(min));
    }
    const bool fits = value->is_number_unsigned() && value->get<uint64_t>() >= static_cast<uint64_t>(min) &&
                      value->get<uint64_t>() <= static_cast<uint64_t>(max);
    if (!fits) Fail(key, Shown(*value), allowed);
    return static_cast<int32_t>(fits ? value->get<int64_t>() : min);
  }

  // A number of [min, max].
  double Number(const char* key, double min, double max, std::optional<double> absent = std::nullopt) {
    const std::string allowed = absl::StrCat("a number from ", min, " to ", max);
    const json* value = Find(key);
    if (value == nullptr) {
      if (!absent.has_value()) Fail(key, "none", allowed);
      return absent.value_or(min);
    }
    const bool fits = value->is_number() && value->get<double>() >= min && value->get<double>() <= max;
    if (!fits) Fail(key, Shown(*value), allowed);
    return fits ? value->get<double>() : min;
  }

  bool Bool(const char* key, bool absent) {
    const json* value = Find(key);
    if (value == nullptr) return absent;
    if (!value->is_boolean()) Fail(key, Shown(*value), "true, false");
    return value->is_boolean() && value->get<bool>();
  }

  // The key must be absent, null or the one value given: anything else is a variant that would be computed wrongly.
  void OnlyText(const char* key, absl::string_view only) {
    const json* value = Find(key);
    if (value != nullptr && !(value->is_string() && value->get_ref<const std::string&>() == only)) {
      Fail(key, Shown(*value), Quoted(only));
    }
  }
  void OnlyFalse(const char* key) {
    const json* value = Find(key);
    if (value != nullptr && !(value->is_boolean() && !value->get<bool>())) Fail(key, Shown(*value), "false");
  }
  void OnlyOne(const char* key) {
    const json* value = Find(key);
    if (value != nullptr && !(value->is_number() && value->get<double>() == 1.0)) Fail(key, Shown(*value), "1");
  }

 private:
  const json& object_;
  const std::string where_;
  absl::Status status_;
};

// The architecture's name, or an error that lists what there is.
std::string ReadArchitecture(KeyReader& keys) {
  std::string name;
  const json* list = keys.Find("architectures");
  const json* type = keys.Find("model_type");
  if (list != nullptr && list->is_array() && list->size() == 1 && list->front().is_string()) {
    name = list->front().get<std::string>();
  } else if (list == nullptr && type != nullptr && type->is_string() &&
             type->get_ref<const std::string&>() == "llama") {
    name = "LlamaForCausalLM";
  }
  if (name != "LlamaForCausalLM" && name != "MistralForCausalLM") {
    const std::string found = !name.empty() ? Quoted(name) : list != nullptr ? Shown(*list) : "none";
    keys.Fail("architectures", found, "[\"LlamaForCausalLM\"], [\"MistralForCausalLM\"]");
  }
  return name;
}

// `rope_theta` beside `rope_scaling` as on the hub, or both in `rope_parameters` as transformers 5 writes them.
absl::StatusOr<double> ReadRopeTheta(KeyReader& keys, absl::string_view name) {
  constexpr double kDefault = 10000.0, kMin = 1.0, kMax = 1e12;
  double theta = keys.Number("rope_theta", kMin, kMax, kDefault);
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const json* value = keys.Find(key);
    if (value == nullptr) continue;
    if (!value->is_object()) {
      keys.Fail(key, Shown(*value), "an object, null");
      continue;
    }
    KeyReader rope(*value, absl::StrCat(name, ": ", key));
    rope.OnlyText("rope_type", "default");
    rope.OnlyText("type", "default");  // the older name of it
    rope.OnlyOne("partial_rotary_factor");
    theta = rope.Number("rope_theta", kMin, kMax, theta);
    if (!rope.status().ok()) return rope.status();
  }
  keys.OnlyOne("partial_rotary_factor");
  return theta;
}

DType ReadDType(KeyReader& keys) {
  const char* key = keys.Find("dtype") != nullptr ? "dtype" : "torch_dtype";
  const json* value = keys.Find(key);
  if (value == nullptr) return DType::kFloat32;
  std::optional<DType> dtype;
  if (value->is_string()) dtype = ParseDType(value->get_ref<const std::string&>());
  if (!dtype.has_value()) keys.Fail(key, Shown(*value), "\"float32\", \"bfloat16\", \"float16\"");
  return dtype.value_or(DType::kFloat32);
}

void ReadHeads(KeyReader& keys, ModelConfig& config) {
  config.q_heads = keys.Int("num_attention_heads", 1, kMaxHeads);
  config.kv_heads = keys.Int("num_key_value_heads", 1, kMaxHeads, config.q_heads);
  if (config.q_heads % config.kv_heads != 0) {
    keys.Fail("num_key_value_heads", absl::StrCat(config.kv_heads),
              absl::StrCat("a divisor of num_attention_heads = ", config.q_heads));
  }
  const bool given = keys.Find("head_dim") != nullptr;
  if (!given && config.hidden_size % config.q_heads != 0) {
    keys.Fail("num_attention_heads", absl::StrCat(config.q_heads),
              absl::StrCat("a divisor of hidden_size = ", config.hidden_size, " where head_dim is absent"));
  }
  config.head_dim = given ? keys.Int("head_dim", 2, kMaxHeadDim) : config.hidden_size / config.q_heads;
  if (config.head_dim < 2 || config.head_dim > kMaxHeadDim || config.head_dim % 2 != 0) {
    keys.Fail(given ? "head_dim" : "hidden_size / num_attention_heads", absl::StrCat(config.head_dim),
              absl::StrCat("an even number from 2 to ", kMaxHeadDim));
  }
}

// What the family has and this code does not compute: refused, never ignored.
void RefuseVariants(KeyReader& keys, const ModelConfig& config) {
  keys.OnlyText("hidden_act", "silu");
  keys.OnlyFalse("attention_bias");
  keys.OnlyFalse("mlp_bias");
  if (const json* value = keys.Find("quantization_config")) keys.Fail("quantization_config", Shown(*value), "null");
  if (config.architecture == "MistralForCausalLM") {
    // A window as wide as the context never cuts. Where the key is absent, the family's default is a window of 4096
    // tokens.
    constexpr int64_t kAbsent = 4096;
    const json* value = keys.Find("sliding_window");
    const bool is_null = value == nullptr && keys.Has("sliding_window");
    if (!is_null && keys.Int("sliding_window", 1, kMaxPositions, kAbsent) < config.max_position_embeddings) {
      keys.Fail("sliding_window", value == nullptr ? absl::StrCat("none (that is ", kAbsent, ")") : Shown(*value),
                absl::StrCat("null, or at least max_position_embeddings = ", config.max_position_embeddings));
    }
  }
}

}  // namespace

uint64_t ModelConfig::NumParameters() const {
  const uint64_t hidden = hidden_size, q = uint64_t(q_heads) * head_dim, kv = uint64_t(kv_heads) * head_dim;
  const uint64_t attention = hidden * (q + 2 * kv) + q * hidden;
  const uint64_t mlp = 3 * hidden * uint64_t(intermediate_size);
  const uint64_t embeddings = (tie_word_embeddings ? 1 : 2) * uint64_t(vocab_size) * hidden;
  return embeddings + uint64_t(num_layers) * (attention + mlp + 2 * hidden) + hidden;
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& directory) {
  const std::string path = directory + "/config.json";
  absl::StatusOr<std::string> text = ReadTextFile(path, kMaxConfigBytes);
  if (!text.ok()) return text.status();
  return ParseModelConfig(*text, path);
}

absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view text, absl::string_view name) {
  absl::StatusOr<json> object = ParseJsonObject(text, name);
  if (!object.ok()) return object.status();
  KeyReader keys(*object, std::string(name));
  ModelConfig config;
  config.architecture = ReadArchitecture(keys);
  config.vocab_size = keys.Int("vocab_size", 1, kMaxVocab);
  config.hidden_size = keys.Int("hidden_size", 1, kMaxWidth);
  config.intermediate_size = keys.Int("intermediate_size", 1, kMaxWidth);
  config.num_layers = keys.Int("num_hidden_layers", 1, kMaxLayers);
  ReadHeads(keys, config);
  config.max_position_embeddings = keys.Int("max_position_embeddings", 2, kMaxPositions);
  config.rms_norm_eps = static_cast<float>(keys.Number("rms_norm_eps", 1e-12, 1.0));
  config.tie_word_embeddings = keys.Bool("tie_word_embeddings", false);
  config.dtype = ReadDType(keys);
  RefuseVariants(keys, config);
  absl::StatusOr<double> theta = ReadRopeTheta(keys, name);
  if (!keys.status().ok()) return keys.status();
  if (!theta.ok()) return theta.status();
  config.rope_theta = *theta;
  return config;
}

}  // namespace quire
