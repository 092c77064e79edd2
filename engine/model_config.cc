#include "engine/model_config.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/config/key_reader.h"
#include "engine/config/registry.h"
#include "engine/gguf_model.h"
#include "engine/json_text.h"
#include "engine/mxfp4.h"
#include "engine/stored_tensor.h"
#include "engine/weight_specs.h"

namespace quire {
namespace {

using nlohmann::json;

// The family that the config names, or an error that lists what there is.
const Family* ReadFamily(KeyReader& keys) {
  const json* list = keys.Find("architectures");
  const json* type = keys.Find("model_type");
  std::string found = "none";
  if (list != nullptr && list->is_array() && list->size() == 1 && list->front().is_string()) {
    if (const Family* family = FindFamily(list->front().get_ref<const std::string&>())) return family;
    found = Shown(list->front());
  } else if (list != nullptr) {
    found = Shown(*list);
  } else if (type != nullptr) {
    for (const Family& family : Families()) {
      if (*type == family.model_type) return &family;
    }
    found = absl::StrCat("model_type ", Shown(*type));
  }
  const std::string allowed = absl::StrJoin(
      Families(), ", ", [](std::string* out, const Family& family) { absl::StrAppend(out, family.architecture); });
  keys.Fail("architectures", found, absl::StrCat("one of ", allowed));
  return nullptr;
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

// FP8 weights: their scales lie beside them, and what they stand for does not depend on the scheme of the activations.
void ReadFp8(const json& value, KeyReader& keys) {
  KeyReader quantization(value, absl::StrCat(keys.where(), ": quantization_config"));
  quantization.OnlyText("fmt", "e4m3");
  const json* block = quantization.Find("weight_block_size");
  if (block != nullptr && *block != json::array({Fp8Scales::kBlock, Fp8Scales::kBlock}))
    quantization.Fail("weight_block_size", Shown(*block), "[128, 128] or null");
  keys.Update(quantization.status());
}

// quantization_config: FP8, and gpt-oss's MXFP4 experts; any other scheme is refused.
void ReadQuantization(KeyReader& keys, ModelConfig& config) {
  const json* value = keys.Find("quantization_config");
  if (value == nullptr) return;
  const auto method = value->is_object() ? value->find("quant_method") : value->end();
  if (method != value->end() && *method == "fp8") return ReadFp8(*value, keys);
  const bool stacked = config.moe.has_value() && config.moe->layout == ExpertLayout::kStacked;
  if (!stacked || !value->is_object()) return keys.Fail("quantization_config", Shown(*value), "null");
  KeyReader quantization(*value, absl::StrCat(keys.where(), ": quantization_config"));
  quantization.OnlyText("quant_method", "mxfp4");
  keys.Update(quantization.status());
  if (config.hidden_size % kMxfp4Group != 0 || config.moe->intermediate_size % kMxfp4Group != 0) {
    keys.Fail("hidden_size, intermediate_size", absl::StrCat(config.hidden_size, ", ", config.moe->intermediate_size),
              absl::StrCat("multiples of ", kMxfp4Group, " with MXFP4 experts"));
  }
  config.moe->layout = ExpertLayout::kStackedMxfp4;
}

// tensor_layout is no key of Hugging Face: what a GGUF file's metadata becomes (engine/gguf_model.h) has it.
void ReadTensorLayout(KeyReader& keys, ModelConfig& config) {
  const std::string layout = keys.Text("tensor_layout", {"transformers", "gguf", "gguf_split_kv_b"}, "transformers");
  if (layout == "transformers") return;
  config.plain_layout = true;
  if (config.qkv_layout == QkvLayout::kByKvHead) config.qkv_layout = QkvLayout::kFused;
  if (config.moe.has_value()) config.moe->layout = ExpertLayout::kSeparate;
  if (config.latent.has_value()) config.latent->split_kv_b = layout == "gguf_split_kv_b";
}

// Bounds what a config alone makes the program allocate: the description of each matrix of each layer.
void CheckNumMatrices(KeyReader& keys, const ModelConfig& config) {
  constexpr int64_t kMax = 1 << 17;  // DeepSeek-V3 has 61 * (256 + 128)
  int64_t per_layer = 1;
  if (config.moe.has_value()) per_layer += config.moe->num_experts;
  if (config.latent.has_value()) per_layer += config.q_heads;
  if (per_layer * config.num_layers > kMax) {
    keys.Fail("num_hidden_layers", absl::StrCat(config.num_layers),
              absl::StrCat("at most ", kMax / per_layer, " with so many experts and heads"));
  }
}

}  // namespace

// Layers of a kind have the same tensors, and there may be a hundred thousand of these: one layer of each is counted.
uint64_t ModelConfig::NumParameters() const {
  const auto count = [this](std::vector<LayerConfig> some) {
    ModelConfig part = *this;
    part.num_layers = static_cast<int32_t>(some.size());
    part.layers = std::move(some);
    uint64_t sum = 0;
    for (const TensorSpec& tensor : ExpectedTensors(part)) sum += tensor.num_parameters;
    return sum;
  };
  const uint64_t outside = count({});
  uint64_t sum = outside;
  for (const bool is_moe : {false, true}) {
    const auto is_kind = [=](const LayerConfig& layer) { return layer.is_moe == is_moe; };
    const auto one = std::find_if(layers.begin(), layers.end(), is_kind);
    if (one == layers.end()) continue;
    const auto num_layers_of_kind = static_cast<uint64_t>(std::count_if(one, layers.end(), is_kind));
    sum += num_layers_of_kind * (count({*one}) - outside);
  }
  return sum;
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& path) {
  std::string name;
  absl::StatusOr<std::string> text = ReadConfigText(path, name);
  if (!text.ok()) return text.status();
  return ParseModelConfig(*text, name);
}

absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view text, absl::string_view name) {
  absl::StatusOr<json> object = ParseJsonObject(text, name);
  if (!object.ok()) return object.status();
  return ModelConfigFromJson(*object, name);
}

absl::StatusOr<ModelConfig> ModelConfigFromJson(const json& object, absl::string_view name) {
  KeyReader keys(object, std::string(name));
  ModelConfig config;
  const Family* family = ReadFamily(keys);
  if (family == nullptr) return keys.status();
  config.architecture = family->architecture;
  config.dtype = ReadDType(keys);
  family->read(keys, config);
  ReadQuantization(keys, config);
  ReadTensorLayout(keys, config);
  CheckNumMatrices(keys, config);
  if (config.embedding_size == 0) config.embedding_size = config.hidden_size;
  config.max_scaled_len = std::max(config.max_scaled_len, config.max_position_embeddings);
  if (!keys.status().ok()) return keys.status();
  return config;
}

}  // namespace quire
