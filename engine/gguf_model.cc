#include "engine/gguf_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "engine/json_text.h"
#include "engine/mapped_file.h"

namespace quire {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxConfigBytes = 1 << 20;
constexpr int64_t kMaxCount = 1 << 24;  // of anything that a config counts; its reader has bounds of its own
constexpr int64_t kMaxExperts = 1 << 12;

struct Name {
  const char* gguf;
  const char* ours;
};

// Of the model, then of a layer; without ".weight" or ".bias". A family's own come first.
constexpr Name kModelNames[] = {
    {"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}};
constexpr Name kLayerNames[] = {{"attn_norm", "input_layernorm"},
                                {"attn_q", "self_attn.q_proj"},
                                {"attn_k", "self_attn.k_proj"},
                                {"attn_v", "self_attn.v_proj"},
                                {"attn_output", "self_attn.o_proj"},
                                {"attn_q_norm", "self_attn.q_norm"},
                                {"attn_k_norm", "self_attn.k_norm"},
                                {"ffn_norm", "post_attention_layernorm"},
                                {"ffn_gate", "mlp.gate_proj"},
                                {"ffn_up", "mlp.up_proj"},
                                {"ffn_down", "mlp.down_proj"},
                                {"ffn_gate_inp", "mlp.gate"},
                                {"ffn_gate_exps", "mlp.experts.gate_proj"},
                                {"ffn_up_exps", "mlp.experts.up_proj"},
                                {"ffn_down_exps", "mlp.experts.down_proj"}};
constexpr Name kMixtralNames[] = {{"ffn_gate_inp", "block_sparse_moe.gate"},
                                  {"ffn_gate_exps", "block_sparse_moe.experts.w1"},
                                  {"ffn_up_exps", "block_sparse_moe.experts.w3"},
                                  {"ffn_down_exps", "block_sparse_moe.experts.w2"}};
constexpr Name kGemmaNames[] = {{"post_attention_norm", "post_attention_layernorm"},
                                {"ffn_norm", "pre_feedforward_layernorm"},
                                {"post_ffw_norm", "post_feedforward_layernorm"}};
constexpr Name kPhi3Names[] = {{"attn_qkv", "self_attn.qkv_proj"}, {"ffn_up", "mlp.gate_up_proj"}};

// One of llama.cpp's architectures.
struct GgufFamily {
  const char* name;  // general.architecture
  const char* architecture;
  const char* model_type;
  absl::Span<const Name> names;  // of a layer, where they differ
  // Rows of q and k alternate the two halves of a head, as rotating neighbours wants them; else the halves lie apart.
  bool interleaves_rotary = false;
  bool norms_are_shifted = false;  // norm weights hold 1 + w
};
constexpr GgufFamily kMixtral = {"llama", "MixtralForCausalLM", "mixtral", kMixtralNames, true};
constexpr GgufFamily kFamilies[] = {
    {"llama", "LlamaForCausalLM", "llama", {}, true},
    {"qwen2", "Qwen2ForCausalLM", "qwen2", {}},
    {"qwen3", "Qwen3ForCausalLM", "qwen3", {}},
    {"qwen3moe", "Qwen3MoeForCausalLM", "qwen3_moe", {}},
    {"gemma2", "Gemma2ForCausalLM", "gemma2", kGemmaNames, false, true},
    {"gemma3", "Gemma3ForCausalLM", "gemma3_text", kGemmaNames, false, true},
    {"phi3", "Phi3ForCausalLM", "phi3", kPhi3Names},
};

// llama.cpp calls Mixtral a llama with experts.
absl::StatusOr<const GgufFamily*> FamilyOf(const GgufMetadata& metadata) {
  const absl::StatusOr<absl::string_view> name = metadata.Text("general.architecture");
  if (!name.ok()) return name.status();
  const auto* const family = std::find_if(std::begin(kFamilies), std::end(kFamilies),
                                          [&](const GgufFamily& each) { return each.name == *name; });
  if (family == std::end(kFamilies)) {
    const auto append = [](std::string* out, const GgufFamily& each) { absl::StrAppend(out, each.name); };
    return absl::InvalidArgumentError(absl::StrCat(metadata.file(), ": key \"general.architecture\": found ",
                                                   Quoted(*name),
                                                   ", allowed: ", absl::StrJoin(kFamilies, ", ", append)));
  }
  return family->name == std::string_view("llama") && metadata.Has("llama.expert_count") ? &kMixtral : family;
}

const GgufTensor* FindTensor(const Gguf& gguf, absl::string_view name) {
  for (const GgufTensor& tensor : gguf.tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

// Builds a config.json. Keeps the first error and goes on with nothing.
class ConfigWriter {
 public:
  ConfigWriter(const Gguf& gguf, const GgufFamily& family) : gguf_(gguf), metadata_(gguf.metadata), family_(family) {}

  absl::StatusOr<std::string> Write() {
    config_["architectures"] = json::array({family_.architecture});
    config_["model_type"] = family_.model_type;
    Sizes();
    Rotary();
    Experts();
    Gemma();
    Tokens();
    if (!status_.ok()) return status_;
    return config_.dump(-1, ' ', false, json::error_handler_t::replace);  // texts of the file may be no UTF-8
  }

 private:
  std::string Key(absl::string_view key) const { return absl::StrCat(family_.name, ".", key); }

  void Update(const absl::Status& status) { status_.Update(status); }

  // config[to] from the key of the architecture; absent ones are left out where `optional`.
  void Integer(absl::string_view key, const char* to, bool optional = false) {
    const absl::StatusOr<int64_t> value = metadata_.Integer(Key(key), 0, kMaxCount);
    if (value.ok()) {
      config_[to] = *value;
    } else if (!optional || !absl::IsNotFound(value.status())) {
      Update(value.status());
    }
  }
  std::optional<double> Number(absl::string_view key) {
    const absl::StatusOr<double> value = metadata_.Number(Key(key));
    if (value.ok()) return *value;
    if (!absl::IsNotFound(value.status())) Update(value.status());
    return std::nullopt;
  }

  void Sizes() {
    Integer("embedding_length", "hidden_size");
    Integer("block_count", "num_hidden_layers");
    Integer("feed_forward_length", "intermediate_size");
    Integer("attention.head_count", "num_attention_heads");
    Integer("attention.head_count_kv", "num_key_value_heads", /*optional=*/true);
    Integer("attention.key_length", "head_dim", /*optional=*/true);
    Integer("context_length", "max_position_embeddings");
    Integer("attention.sliding_window", "sliding_window", /*optional=*/true);
    if (!config_.contains("sliding_window")) config_["sliding_window"] = nullptr;
    if (config_.contains("head_dim") && metadata_.Has(Key("attention.value_length"))) {
      const int64_t head_dim = config_["head_dim"].get<int64_t>();
      Update(metadata_.Integer(Key("attention.value_length"), head_dim, head_dim).status());
    }
    // As config.json writes it: the float32 of the file is not quite the number that was meant.
    if (const auto epsilon = Number("attention.layer_norm_rms_epsilon"); epsilon.has_value())
      config_["rms_norm_eps"] = Shortest(*epsilon);
    config_["tie_word_embeddings"] = FindTensor(gguf_, "output.weight") == nullptr;
    const GgufTensor* embedding = FindTensor(gguf_, "token_embd.weight");
    if (embedding == nullptr || embedding->shape.size() != 2) {
      return Update(absl::InvalidArgumentError(
          absl::StrCat(metadata_.file(), ": tensor \"token_embd.weight\": found none with two dimensions, needed")));
    }
    config_["vocab_size"] = embedding->shape[0];
    config_["torch_dtype"] = embedding->type->type == GgmlType::kF32   ? "float32"
                             : embedding->type->type == GgmlType::kF16 ? "float16"
                                                                       : "bfloat16";
    if (family_.model_type == std::string_view("qwen2") || family_.model_type == std::string_view("qwen3"))
      config_["use_sliding_window"] = false;
  }

  // The shortest decimal that is the same float32.
  static double Shortest(double number) {
    double shortest = number;
    return absl::SimpleAtod(absl::StrCat(static_cast<float>(number)), &shortest) &&
                   static_cast<float>(shortest) == static_cast<float>(number)
               ? shortest
               : number;
  }

  void Rotary() {
    config_["rope_theta"] = Shortest(Number("rope.freq_base").value_or(10000.0));
    json scaling = json::object();
    if (const absl::StatusOr<absl::string_view> type = metadata_.Text(Key("rope.scaling.type")); type.ok()) {
      if (*type != "none") scaling["rope_type"] = std::string(*type);
    } else if (!absl::IsNotFound(type.status())) {
      Update(type.status());
    }
    if (const auto factor = Number("rope.scaling.factor"); factor.has_value() && !scaling.empty())
      scaling["factor"] = *factor;
    if (const auto length = Number("rope.scaling.original_context_length"); length.has_value())
      scaling["original_max_position_embeddings"] = static_cast<int64_t>(*length);
    if (FindTensor(gguf_, "rope_freqs.weight") != nullptr) Llama3Scaling(scaling);
    if (FindTensor(gguf_, "rope_factors_long.weight") != nullptr) LongRope(scaling);
    if (scaling.contains("rope_type")) config_["rope_scaling"] = scaling;
    // A head may be rotated in part.
    const absl::StatusOr<int64_t> rotary = metadata_.Integer(Key("rope.dimension_count"), 1, kMaxCount);
    const auto heads = config_.find("num_attention_heads");
    if (!rotary.ok() || heads == config_.end() || heads->get<int64_t>() == 0 || !config_.contains("hidden_size"))
      return;
    const int64_t head_dim = config_.contains("head_dim")
                                 ? config_["head_dim"].get<int64_t>()
                                 : config_["hidden_size"].get<int64_t>() / heads->get<int64_t>();
    if (*rotary != head_dim && head_dim > 0)
      config_["partial_rotary_factor"] = static_cast<double>(*rotary) / static_cast<double>(head_dim);
  }

  std::vector<float> Factors(const char* name) {
    const GgufTensor* tensor = FindTensor(gguf_, name);
    if (tensor == nullptr || tensor->type->type != GgmlType::kF32 || tensor->shape.size() != 1 ||
        tensor->shape[0] > kMaxExperts) {
      Update(absl::InvalidArgumentError(absl::StrCat(metadata_.file(), ": tensor ", Quoted(name),
                                                     ": found no vector of F32 of at most ", kMaxExperts,
                                                     " elements, needed")));
      return {};
    }
    std::vector<float> factors(static_cast<size_t>(tensor->shape[0]));
    std::memcpy(factors.data(), tensor->data, tensor->bytes);
    for (const float factor : factors) {
      if (std::isfinite(factor) && factor > 0) continue;
      Update(absl::InvalidArgumentError(absl::StrCat(metadata_.file(), ": tensor ", Quoted(name), ": found ", factor,
                                                     ", allowed: finite numbers above 0")));
      return {};
    }
    return factors;
  }

  // Llama 3.1's scaling comes as the factor of each frequency. Its four numbers are known for all released models; what
  // they give must be what the file has.
  void Llama3Scaling(json& scaling) {
    const std::vector<float> factors = Factors("rope_freqs.weight");
    if (factors.empty()) return;
    const double factor = *std::max_element(factors.begin(), factors.end()), low = 1, high = 4, length = 8192;
    const double theta = config_["rope_theta"].get<double>();
    for (size_t i = 0; i < factors.size(); ++i) {
      const double exponent = static_cast<double>(i) / static_cast<double>(factors.size());
      const double wavelength = 2 * M_PI * std::pow(theta, exponent);
      const double smooth = (length / wavelength - low) / (high - low);
      const double expected = wavelength < length / high  ? 1
                              : wavelength > length / low ? factor
                                                          : 1 / ((1 - smooth) / factor + smooth);
      if (std::abs(factors[i] - expected) > 1e-3 * expected) {
        return Update(absl::InvalidArgumentError(
            absl::StrCat(metadata_.file(), ": tensor \"rope_freqs.weight\": found factor ", factors[i], " at index ", i,
                         ", allowed: ", expected, ", that of Llama 3.1's scaling")));
      }
    }
    scaling = {{"rope_type", "llama3"},
               {"factor", factor},
               {"low_freq_factor", low},
               {"high_freq_factor", high},
               {"original_max_position_embeddings", static_cast<int64_t>(length)}};
  }

  void LongRope(json& scaling) {
    scaling["rope_type"] = "longrope";
    scaling["long_factor"] = Factors("rope_factors_long.weight");
    scaling["short_factor"] = Factors("rope_factors_short.weight");
    if (const auto attention = Number("rope.scaling.attn_factor"); attention.has_value())
      scaling["attention_factor"] = *attention;
    if (scaling.contains("original_max_position_embeddings"))
      config_["original_max_position_embeddings"] = scaling["original_max_position_embeddings"];
  }

  void Experts() {
    if (!metadata_.Has(Key("expert_count"))) return;
    const bool is_mixtral = family_.model_type == std::string_view("mixtral");
    Integer("expert_count", is_mixtral ? "num_local_experts" : "num_experts");
    Integer("expert_used_count", "num_experts_per_tok");
    Integer("expert_feed_forward_length", "moe_intermediate_size", /*optional=*/true);
    if (!is_mixtral) config_["norm_topk_prob"] = true;
  }

  // What llama.cpp knows of Gemma by heart.
  void Gemma() {
    if (!family_.norms_are_shifted || !status_.ok()) return;
    const int64_t layers = config_["num_hidden_layers"].get<int64_t>();
    const int64_t heads = config_["num_attention_heads"].get<int64_t>();
    const bool is_gemma2 = family_.model_type == std::string_view("gemma2");
    const bool is_27b = layers == (is_gemma2 ? 46 : 62);
    if (config_.contains("head_dim") && heads > 0) {
      config_["query_pre_attn_scalar"] =
          is_27b ? config_["hidden_size"].get<int64_t>() / heads : config_["head_dim"].get<int64_t>();
    }
    config_["hidden_activation"] = "gelu_pytorch_tanh";
    if (is_gemma2) {
      if (const auto cap = Number("attn_logit_softcapping"); cap.has_value()) config_["attn_logit_softcapping"] = *cap;
      if (const auto cap = Number("final_logit_softcapping"); cap.has_value())
        config_["final_logit_softcapping"] = *cap;
    } else {
      config_["rope_local_base_freq"] = 10000.0;
      config_["sliding_window_pattern"] = 6;
    }
  }

  // Ids that end a text.
  void Tokens() {
    std::vector<int64_t> ends;
    for (const char* key :
         {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
      const absl::StatusOr<int64_t> id = metadata_.Integer(key, 0, kMaxCount);
      if (id.ok()) {
        if (std::find(ends.begin(), ends.end(), *id) == ends.end()) ends.push_back(*id);
      } else if (!absl::IsNotFound(id.status())) {
        Update(id.status());
      }
    }
    if (!ends.empty()) config_["eos_token_id"] = ends;
  }

  const Gguf& gguf_;
  const GgufMetadata& metadata_;
  const GgufFamily& family_;
  json config_ = json::object();
  absl::Status status_;
};

// How the engine calls the elements of a tensor; nullopt where it has no such.
std::optional<WeightFormat> FormatOf(GgmlType type) {
  const auto blocks = [](BlockFormat format) { return WeightFormat(DType::kBFloat16, format); };
  switch (type) {
    case GgmlType::kF32:
      return DType::kFloat32;
    case GgmlType::kF16:
      return DType::kFloat16;
    case GgmlType::kBF16:
      return DType::kBFloat16;
    case GgmlType::kQ4_0:
      return blocks(BlockFormat::kQ4_0);
    case GgmlType::kQ4_1:
      return blocks(BlockFormat::kQ4_1);
    case GgmlType::kQ5_0:
      return blocks(BlockFormat::kQ5_0);
    case GgmlType::kQ5_1:
      return blocks(BlockFormat::kQ5_1);
    case GgmlType::kQ8_0:
      return blocks(BlockFormat::kQ8_0);
    case GgmlType::kQ2_K:
      return blocks(BlockFormat::kQ2_K);
    case GgmlType::kQ3_K:
      return blocks(BlockFormat::kQ3_K);
    case GgmlType::kQ4_K:
      return blocks(BlockFormat::kQ4_K);
    case GgmlType::kQ5_K:
      return blocks(BlockFormat::kQ5_K);
    case GgmlType::kQ6_K:
      return blocks(BlockFormat::kQ6_K);
    case GgmlType::kMXFP4:
      return blocks(BlockFormat::kMxfp4);
  }
  return std::nullopt;
}

// "blk.7.attn_q.weight" as ours; empty where it is unknown.
std::string OurName(const GgufFamily& family, absl::string_view name) {
  absl::string_view suffix = absl::EndsWith(name, ".bias") ? ".bias" : ".weight";
  absl::string_view stem = name;
  if (!absl::ConsumeSuffix(&stem, suffix)) return "";
  std::string prefix;
  if (absl::ConsumePrefix(&stem, "blk.")) {
    const size_t dot = stem.find('.');
    int32_t layer = 0;
    if (dot == absl::string_view::npos || !absl::SimpleAtoi(stem.substr(0, dot), &layer) || layer < 0) return "";
    prefix = absl::StrCat("model.layers.", layer, ".");
    stem = stem.substr(dot + 1);
  }
  const auto find = [&](absl::Span<const Name> names) -> std::string {
    for (const Name& each : names) {
      if (stem == each.gguf) return absl::StrCat(prefix, each.ours, suffix);
    }
    return "";
  };
  if (prefix.empty()) return find(kModelNames);
  const std::string own = find(family.names);
  return own.empty() ? find(kLayerNames) : own;
}

// What the config is made of, or nobody reads.
bool IsNoWeight(absl::string_view name) {
  return name == "rope_freqs.weight" || name == "rope_factors_long.weight" || name == "rope_factors_short.weight";
}

// A stack [experts, rows, cols] as one matrix for each: NAME.experts.PART becomes NAME.experts.E.PART.
void AppendExperts(const StoredTensor& stack, std::vector<StoredTensor>& tensors) {
  const size_t dot = stack.name.find(".experts.") + std::strlen(".experts.");
  for (int64_t e = 0; e < stack.shape[0]; ++e) {
    StoredTensor expert = stack;
    expert.name = absl::StrCat(stack.name.substr(0, dot), e, ".", stack.name.substr(dot));
    expert.shape = {stack.shape[1], stack.shape[2]};
    expert.bytes = stack.bytes / static_cast<uint64_t>(stack.shape[0]);
    expert.data = stack.data + e * static_cast<int64_t>(expert.bytes);
    tensors.push_back(std::move(expert));
  }
}

}  // namespace

bool IsGgufPath(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored);
}

absl::StatusOr<std::string> GgufConfigText(const Gguf& gguf) {
  const absl::StatusOr<const GgufFamily*> family = FamilyOf(gguf.metadata);
  if (!family.ok()) return family.status();
  if (const absl::StatusOr<int64_t> parts = gguf.metadata.Integer("split.count", 0, 1);
      !absl::IsNotFound(parts.status()))
    if (!parts.ok()) return parts.status();
  return ConfigWriter(gguf, **family).Write();
}

absl::StatusOr<std::vector<StoredTensor>> GgufTensors(const Gguf& gguf) {
  const GgufMetadata& metadata = gguf.metadata;
  const absl::StatusOr<const GgufFamily*> family = FamilyOf(metadata);
  if (!family.ok()) return family.status();
  const std::string prefix = absl::StrCat((*family)->name, ".attention.head_count");
  const absl::StatusOr<int64_t> q_heads = metadata.Integer(prefix, 1, kMaxCount);
  if (!q_heads.ok()) return q_heads.status();
  const absl::StatusOr<int64_t> kv_heads = metadata.Integer(prefix + "_kv", 1, kMaxCount);
  std::vector<StoredTensor> tensors;
  for (const GgufTensor& from : gguf.tensors) {
    if (IsNoWeight(from.name)) continue;
    const auto error = [&](auto... parts) {
      return absl::InvalidArgumentError(absl::StrCat(metadata.file(), ": tensor ", Quoted(from.name), ": ", parts...));
    };
    const std::optional<WeightFormat> format = FormatOf(from.type->type);
    if (!format.has_value()) {
      return error("found type ", from.type->name,
                   ", allowed: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, MXFP4");
    }
    StoredTensor tensor = {.name = OurName(**family, from.name),
                           .dtype = format->dtype,
                           .shape = from.shape,
                           .data = from.data,
                           .bytes = from.bytes,
                           .blocks = format->blocks};
    if (tensor.name.empty()) return error("unknown to ", (*family)->name);
    if (format->quantized() && from.shape.size() == 1) return error("found a vector of type ", from.type->name);
    if ((*family)->interleaves_rotary && absl::EndsWith(tensor.name, ".q_proj.weight"))
      tensor.interleaved_heads = *q_heads;
    if ((*family)->interleaves_rotary && absl::EndsWith(tensor.name, ".k_proj.weight"))
      tensor.interleaved_heads = kv_heads.ok() ? *kv_heads : *q_heads;
    if (tensor.interleaved_heads > 0 && tensor.shape[0] % (2 * tensor.interleaved_heads) != 0) {
      return error("found ", tensor.shape[0], " rows, allowed: a multiple of twice its ", tensor.interleaved_heads,
                   " heads");
    }
    if ((*family)->norms_are_shifted && absl::EndsWith(tensor.name, "norm.weight")) tensor.addend = -1;
    if (absl::StrContains(tensor.name, ".experts.")) {
      if (tensor.shape.size() != 3 || tensor.shape[0] > kMaxExperts)
        return error("found ", tensor.shape.size(), " dimensions, allowed 3, at most ", kMaxExperts, " experts");
      AppendExperts(tensor, tensors);
    } else {
      tensors.push_back(std::move(tensor));
    }
  }
  return tensors;
}

absl::StatusOr<std::string> ReadConfigText(const std::string& path, std::string& name) {
  name = IsGgufPath(path) ? path : path + "/config.json";
  if (!IsGgufPath(path)) return ReadTextFile(name, kMaxConfigBytes);
  const absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const absl::StatusOr<Gguf> gguf = ParseGguf(file->bytes(), path);
  if (!gguf.ok()) return gguf.status();
  return GgufConfigText(*gguf);
}

}  // namespace quire
