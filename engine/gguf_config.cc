// The metadata of a GGUF file in the words of config.json.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/gguf_family.h"
#include "engine/gguf_model.h"
#include "engine/json_text.h"

namespace quire {
namespace {

using nlohmann::json;

constexpr int64_t kMaxCount = 1 << 24;  // of anything that a config counts; its reader has bounds of its own
constexpr int64_t kMaxFactors = 1 << 12;

// Builds a config.json. Keeps the first error and goes on with nothing.
class ConfigWriter {
 public:
  ConfigWriter(const Gguf& gguf, const GgufFamily& family) : gguf_(gguf), metadata_(gguf.metadata), family_(family) {}

  absl::StatusOr<std::string> Write() {
    config_["architectures"] = json::array({family_.architecture});
    config_["model_type"] = family_.model_type;
    Sizes();
    Attention();
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
    const GgufSizeKeys& keys = family_.sizes;
    Integer("embedding_length", keys.hidden);
    Integer("block_count", keys.layers);
    Integer("feed_forward_length", keys.inner);
    Integer("attention.head_count", keys.q_heads);
    Integer("context_length", keys.positions);
    // As config.json writes them: the float32 of the file is not quite the number that was meant.
    if (const auto epsilon = Number("attention.layer_norm_rms_epsilon"); epsilon.has_value())
      config_["rms_norm_eps"] = Shortest(*epsilon);
    if (const auto epsilon = Number("attention.layer_norm_epsilon"); epsilon.has_value())
      config_["layer_norm_epsilon"] = Shortest(*epsilon);
    config_["tie_word_embeddings"] = FindTensor(gguf_, "output.weight") == nullptr;
    const GgufTensor* embedding = FindTensor(gguf_, "token_embd.weight");
    if (embedding == nullptr || embedding->shape.size() != 2) {
      return Update(absl::InvalidArgumentError(
          absl::StrCat(metadata_.file(), ": tensor \"token_embd.weight\": found none with two dimensions, needed")));
    }
    config_["vocab_size"] = embedding->shape[0];
    // float32 would unpack what is quantised.
    const bool has_blocks = std::any_of(gguf_.tensors.begin(), gguf_.tensors.end(),
                                        [](const GgufTensor& tensor) { return tensor.type->block_len > 1; });
    config_["torch_dtype"] = embedding->type->type == GgmlType::kF32 && !has_blocks ? "float32"
                             : embedding->type->type == GgmlType::kF16              ? "float16"
                                                                                    : "bfloat16";
    config_["tensor_layout"] = FindTensor(gguf_, "blk.0.attn_k_b.weight") != nullptr ? "gguf_split_kv_b" : "gguf";
  }

  void Attention() {
    if (family_.IsLatent()) return Latent();
    Integer("attention.head_count_kv", family_.Is("falcon") ? "num_kv_heads" : "num_key_value_heads",
            /*optional=*/true);
    Integer("attention.key_length", "head_dim", /*optional=*/true);
    if (config_.contains("head_dim") && metadata_.Has(Key("attention.value_length"))) {
      const int64_t head_dim = config_["head_dim"].get<int64_t>();
      Update(metadata_.Integer(Key("attention.value_length"), head_dim, head_dim).status());
    }
    const absl::StatusOr<int64_t> window = metadata_.Integer(Key("attention.sliding_window"), 0, kMaxCount);
    if (!window.ok() && !absl::IsNotFound(window.status())) Update(window.status());
    config_["sliding_window"] = window.ok() && *window > 0 ? json(*window) : json(nullptr);
    if (family_.Is("qwen2") || family_.Is("qwen3")) config_["use_sliding_window"] = false;
    config_["attention_bias"] = FindTensor(gguf_, "blk.0.attn_q.bias") != nullptr;
    if (family_.Is("llama")) config_["mlp_bias"] = FindTensor(gguf_, "blk.0.ffn_up.bias") != nullptr;
    if (family_.Is("falcon")) Falcon();
  }

  // DeepSeek's heads have parts with and without position; older files tell the sizes before, newer ones those after
  // the projections up are absorbed.
  void Latent() {
    Integer("attention.kv_lora_rank", "kv_lora_rank");
    Integer("attention.q_lora_rank", "q_lora_rank", /*optional=*/true);
    if (!config_.contains("q_lora_rank")) config_["q_lora_rank"] = nullptr;
    Integer("rope.dimension_count", "qk_rope_head_dim");
    const char* const suffix = metadata_.Has(Key("attention.key_length_mla")) ? "_mla" : "";
    Integer(absl::StrCat("attention.value_length", suffix), "v_head_dim");
    const absl::StatusOr<int64_t> head =
        metadata_.Integer(Key(absl::StrCat("attention.key_length", suffix)), 1, kMaxCount);
    Update(head.status());
    if (status_.ok()) config_["qk_nope_head_dim"] = *head - config_["qk_rope_head_dim"].get<int64_t>();
  }

  void Falcon() {
    const bool has_two_norms = FindTensor(gguf_, "blk.0.attn_norm_2.weight") != nullptr;
    config_["new_decoder_architecture"] = has_two_norms || config_.value("num_kv_heads", int64_t{1}) > 1;
    config_["num_ln_in_parallel_attn"] = has_two_norms ? 2 : 1;
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
      scaling["factor"] = Shortest(*factor);
    if (const auto length = Number("rope.scaling.original_context_length"); length.has_value())
      scaling["original_max_position_embeddings"] = static_cast<int64_t>(std::clamp(*length, 0.0, 1.0 * kMaxCount));
    if (scaling.value("rope_type", "") == "yarn") Yarn(scaling);
    if (FindTensor(gguf_, "rope_freqs.weight") != nullptr) Llama3Scaling(scaling);
    if (FindTensor(gguf_, "rope_factors_long.weight") != nullptr) LongRope(scaling);
    if (scaling.contains("rope_type")) config_["rope_scaling"] = scaling;
    if (!family_.IsLatent()) PartialRotary();
  }

  // A head may be rotated in part.
  void PartialRotary() {
    const absl::StatusOr<int64_t> rotary = metadata_.Integer(Key("rope.dimension_count"), 1, kMaxCount);
    const auto heads = config_.find(family_.sizes.q_heads), hidden = config_.find(family_.sizes.hidden);
    if (!rotary.ok() || heads == config_.end() || heads->get<int64_t>() == 0 || hidden == config_.end()) return;
    const int64_t head_dim = config_.contains("head_dim") ? config_["head_dim"].get<int64_t>()
                                                          : hidden->get<int64_t>() / heads->get<int64_t>();
    if (*rotary != head_dim && head_dim > 0)
      config_["partial_rotary_factor"] = static_cast<double>(*rotary) / static_cast<double>(head_dim);
  }

  void Yarn(json& scaling) {
    const auto copy = [&](absl::string_view key, const char* to) {
      if (const auto number = Number(absl::StrCat("rope.scaling.", key)); number.has_value())
        scaling[to] = Shortest(*number);
    };
    copy("yarn_beta_fast", "beta_fast");
    copy("yarn_beta_slow", "beta_slow");
    copy("yarn_attn_factor", "attention_factor");
    if (const auto factor = Number("rope.scaling.yarn_ext_factor"); factor.value_or(1) != 1) {
      Update(absl::InvalidArgumentError(absl::StrCat(metadata_.file(), ": key ",
                                                     Quoted(Key("rope.scaling.yarn_ext_factor")), ": found ", *factor,
                                                     ", allowed: 1")));
    }
    // A tenth of DeepSeek's mscale_all_dim, which all its releases have for mscale too.
    if (const auto log = Number("rope.scaling.yarn_log_multiplier"); log.has_value() && family_.IsLatent())
      scaling["mscale"] = scaling["mscale_all_dim"] = Shortest(Shortest(*log) * 10);
    if (family_.Is("gpt_oss")) scaling["truncate"] = false;  // of all its releases
  }

  std::vector<float> Factors(const char* name) {
    const GgufTensor* tensor = FindTensor(gguf_, name);
    if (tensor == nullptr || tensor->type->type != GgmlType::kF32 || tensor->shape.size() != 1 ||
        tensor->shape[0] > kMaxFactors) {
      Update(absl::InvalidArgumentError(absl::StrCat(metadata_.file(), ": tensor ", Quoted(name),
                                                     ": found no vector of F32 of at most ", kMaxFactors,
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
    const bool is_local = family_.Is("mixtral") || family_.Is("gpt_oss");
    Integer("expert_count", is_local ? "num_local_experts" : family_.IsLatent() ? "n_routed_experts" : "num_experts");
    Integer("expert_used_count", "num_experts_per_tok");
    Integer("expert_feed_forward_length", "moe_intermediate_size", /*optional=*/true);
    if (family_.IsLatent()) return DeepseekExperts();
    if (!is_local) config_["norm_topk_prob"] = true;
  }

  void DeepseekExperts() {
    Integer("leading_dense_block_count", "first_k_dense_replace");
    Integer("expert_shared_count", "n_shared_experts", /*optional=*/true);
    if (const auto scale = Number("expert_weights_scale"); scale.has_value())
      config_["routed_scaling_factor"] = Shortest(*scale);
    const absl::StatusOr<bool> norm = metadata_.Bool(Key("expert_weights_norm"));
    if (!norm.ok() && !absl::IsNotFound(norm.status())) Update(norm.status());
    config_["norm_topk_prob"] = norm.ok() && *norm;
    Integer("expert_group_count", "n_group", /*optional=*/true);
    Integer("expert_group_used_count", "topk_group", /*optional=*/true);
    // Files from before these keys: the groups of the one release of each family that has them.
    if (!config_.contains("n_group") && status_.ok()) {
      const auto experts = config_["n_routed_experts"].get<int64_t>();
      const bool is_v3 = family_.Is("deepseek_v3"), has_groups = experts == (is_v3 ? 256 : 160);
      config_["n_group"] = has_groups ? 8 : 1;
      config_["topk_group"] = has_groups ? (is_v3 ? 4 : 3) : 1;
    }
    if (family_.Is("deepseek_v2") && status_.ok())
      config_["topk_method"] = config_["n_group"].get<int64_t>() > 1 ? "group_limited_greedy" : "greedy";
    // Layers that predict more than one token ahead count as blocks there.
    const absl::StatusOr<int64_t> ahead = metadata_.Integer(Key("nextn_predict_layers"), 0, kMaxCount);
    if (!ahead.ok() && !absl::IsNotFound(ahead.status())) Update(ahead.status());
    if (ahead.ok() && status_.ok()) config_["num_hidden_layers"] = config_["num_hidden_layers"].get<int64_t>() - *ahead;
  }

  // What llama.cpp knows of Gemma by heart.
  void Gemma() {
    if (!family_.norms_are_shifted || !status_.ok()) return;
    const int64_t layers = config_["num_hidden_layers"].get<int64_t>();
    const int64_t heads = config_["num_attention_heads"].get<int64_t>();
    const bool is_gemma2 = family_.Is("gemma2");
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
      config_["rope_local_base_freq"] = Shortest(Number("rope.freq_base_swa").value_or(10000.0));
      config_["sliding_window_pattern"] = 6;
      Integer("attention.sliding_window_pattern", "sliding_window_pattern", /*optional=*/true);
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

}  // namespace

absl::StatusOr<std::string> GgufConfigText(const Gguf& gguf) {
  const absl::StatusOr<const GgufFamily*> family = GgufFamilyOf(gguf);
  if (!family.ok()) return family.status();
  if (const absl::StatusOr<int64_t> parts = gguf.metadata.Integer("split.count", 0, 1);
      !absl::IsNotFound(parts.status()))
    if (!parts.ok()) return parts.status();
  return ConfigWriter(gguf, **family).Write();
}

}  // namespace quire
