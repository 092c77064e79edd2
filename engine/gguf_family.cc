#include "engine/gguf_family.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/json_text.h"

namespace quire {
namespace {

constexpr GgufName kMixtralNames[] = {{"ffn_gate_inp", "block_sparse_moe.gate"},
                                      {"ffn_gate_exps", "block_sparse_moe.experts.w1"},
                                      {"ffn_up_exps", "block_sparse_moe.experts.w3"},
                                      {"ffn_down_exps", "block_sparse_moe.experts.w2"}};
constexpr GgufName kGemmaNames[] = {{"post_attention_norm", "post_attention_layernorm"},
                                    {"ffn_norm", "pre_feedforward_layernorm"},
                                    {"post_ffw_norm", "post_feedforward_layernorm"}};
constexpr GgufName kPhi3Names[] = {{"attn_qkv", "self_attn.qkv_proj"}, {"ffn_up", "mlp.gate_up_proj"}};
constexpr GgufName kDeepseekNames[] = {{"attn_q_a", "self_attn.q_a_proj"},
                                       {"attn_q_a_norm", "self_attn.q_a_layernorm"},
                                       {"attn_q_b", "self_attn.q_b_proj"},
                                       {"attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"},
                                       {"attn_kv_a_norm", "self_attn.kv_a_layernorm"},
                                       {"attn_kv_b", "self_attn.kv_b_proj"},
                                       {"attn_k_b", "self_attn.k_b_proj"},
                                       {"attn_v_b", "self_attn.v_b_proj"},
                                       {"exp_probs_b.bias", "mlp.gate.e_score_correction_bias"},
                                       {"ffn_gate_shexp", "mlp.shared_experts.gate_proj"},
                                       {"ffn_up_shexp", "mlp.shared_experts.up_proj"},
                                       {"ffn_down_shexp", "mlp.shared_experts.down_proj"}};
constexpr GgufName kGptOssNames[] = {{"post_attention_norm", "post_attention_layernorm"},
                                     {"attn_sinks.weight", "self_attn.sinks"},
                                     {"ffn_gate_inp", "mlp.router"}};
constexpr GgufName kFalconModelNames[] = {{"token_embd", "transformer.word_embeddings"},
                                          {"output_norm", "transformer.ln_f"}};
constexpr GgufName kFalconNames[] = {{"attn_norm", "input_layernorm"},
                                     {"attn_qkv", "self_attention.query_key_value"},
                                     {"attn_output", "self_attention.dense"},
                                     {"ffn_up", "mlp.dense_h_to_4h"},
                                     {"ffn_down", "mlp.dense_4h_to_h"}};
// With two norms side by side: the one of attention is the second.
constexpr GgufName kFalcon40bNames[] = {{"attn_norm", "ln_mlp"},
                                        {"attn_norm_2", "ln_attn"},
                                        {"attn_qkv", "self_attention.query_key_value"},
                                        {"attn_output", "self_attention.dense"},
                                        {"ffn_up", "mlp.dense_h_to_4h"},
                                        {"ffn_down", "mlp.dense_4h_to_h"}};
constexpr GgufName kGpt2ModelNames[] = {
    {"token_embd", "transformer.wte"}, {"position_embd", "transformer.wpe"}, {"output_norm", "transformer.ln_f"}};
constexpr GgufName kGpt2Names[] = {{"attn_norm", "ln_1"}, {"attn_qkv", "attn.c_attn"}, {"attn_output", "attn.c_proj"},
                                   {"ffn_norm", "ln_2"},  {"ffn_up", "mlp.c_fc"},      {"ffn_down", "mlp.c_proj"}};

constexpr GgufSizeKeys kFalconSizes = {.inner = "ffn_hidden_size"};
constexpr GgufSizeKeys kGpt2Sizes = {
    .hidden = "n_embd", .layers = "n_layer", .inner = "n_inner", .q_heads = "n_head", .positions = "n_positions"};

// The first of an architecture is what it is where nothing says otherwise.
constexpr GgufFamily kFamilies[] = {
    {"llama", "LlamaForCausalLM", "llama", {}, /*interleaves_rotary=*/true},
    {"llama", "MixtralForCausalLM", "mixtral", kMixtralNames, /*interleaves_rotary=*/true},
    {"qwen2", "Qwen2ForCausalLM", "qwen2"},
    {"qwen3", "Qwen3ForCausalLM", "qwen3"},
    {"qwen3moe", "Qwen3MoeForCausalLM", "qwen3_moe"},
    {"gemma2", "Gemma2ForCausalLM", "gemma2", kGemmaNames, false, /*norms_are_shifted=*/true},
    {"gemma3", "Gemma3ForCausalLM", "gemma3_text", kGemmaNames, false, /*norms_are_shifted=*/true},
    {"phi3", "Phi3ForCausalLM", "phi3", kPhi3Names},
    {"deepseek2", "DeepseekV2ForCausalLM", "deepseek_v2", kDeepseekNames},
    {"deepseek2", "DeepseekV3ForCausalLM", "deepseek_v3", kDeepseekNames},
    {"gpt-oss", "GptOssForCausalLM", "gpt_oss", kGptOssNames},
    {"falcon", "FalconForCausalLM", "falcon", kFalconNames, false, false, kFalconModelNames, "transformer.h.",
     kFalconSizes},
    {"falcon", "FalconForCausalLM", "falcon", kFalcon40bNames, false, false, kFalconModelNames, "transformer.h.",
     kFalconSizes},
    {"gpt2", "GPT2LMHeadModel", "gpt2", kGpt2Names, false, false, kGpt2ModelNames, "transformer.h.", kGpt2Sizes},
};

// What tells the second family of an architecture from the first.
absl::StatusOr<bool> IsSecond(const Gguf& gguf, absl::string_view architecture) {
  constexpr int64_t kSigmoid = 2;
  if (architecture == "llama") return gguf.metadata.Has("llama.expert_count");
  if (architecture == "falcon") return FindTensor(gguf, "blk.0.attn_norm_2.weight") != nullptr;
  if (architecture != "deepseek2") return false;
  const absl::StatusOr<int64_t> gate = gguf.metadata.Integer("deepseek2.expert_gating_func", 0, kSigmoid);
  if (absl::IsNotFound(gate.status())) return false;
  if (!gate.ok()) return gate.status();
  return *gate == kSigmoid;
}

}  // namespace

absl::Span<const GgufFamily> GgufFamilies() { return kFamilies; }

absl::StatusOr<const GgufFamily*> GgufFamilyOf(const Gguf& gguf) {
  const absl::StatusOr<absl::string_view> name = gguf.metadata.Text("general.architecture");
  if (!name.ok()) return name.status();
  const auto* const family = std::find_if(std::begin(kFamilies), std::end(kFamilies),
                                          [&](const GgufFamily& each) { return each.name == *name; });
  if (family == std::end(kFamilies)) {
    std::vector<absl::string_view> names;
    for (const GgufFamily& each : kFamilies) {
      if (names.empty() || names.back() != each.name) names.push_back(each.name);
    }
    return absl::InvalidArgumentError(absl::StrCat(gguf.metadata.file(), ": key \"general.architecture\": found ",
                                                   Quoted(*name), ", allowed: ", absl::StrJoin(names, ", ")));
  }
  const absl::StatusOr<bool> is_second = IsSecond(gguf, *name);
  if (!is_second.ok()) return is_second.status();
  return *is_second ? family + 1 : family;
}

const GgufTensor* FindTensor(const Gguf& gguf, absl::string_view name) {
  for (const GgufTensor& tensor : gguf.tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

}  // namespace quire
