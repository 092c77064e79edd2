#include "engine/config/registry.h"

#include "engine/config/families.h"

namespace quire {
namespace {

constexpr TensorNames kLlama;
constexpr TensorNames kMixtral = {.router = "block_sparse_moe.gate",
                                  .experts = "block_sparse_moe.experts",
                                  .expert_gate = "w1",
                                  .expert_up = "w3",
                                  .expert_down = "w2"};
constexpr TensorNames kGemma = {.post_attention_norm = "post_attention_layernorm",
                                .mlp_norm = "pre_feedforward_layernorm",
                                .post_mlp_norm = "post_feedforward_layernorm"};
constexpr TensorNames kPhi3 = {.qkv = "self_attn.qkv_proj", .gate_up = "mlp.gate_up_proj"};
constexpr TensorNames kGptOss = {.router = "mlp.router"};
constexpr TensorNames kFalcon = {.prefix = "transformer.",
                                 .embedding = "word_embeddings",
                                 .layers = "h.",
                                 .final_norm = "ln_f",
                                 .parallel_attention_norm = "ln_attn",
                                 .parallel_mlp_norm = "ln_mlp",
                                 .qkv = "self_attention.query_key_value",
                                 .o = "self_attention.dense",
                                 .up = "mlp.dense_h_to_4h",
                                 .down = "mlp.dense_4h_to_h"};
constexpr TensorNames kGpt2 = {.prefix = "transformer.",
                               .embedding = "wte",
                               .positions = "wpe",
                               .layers = "h.",
                               .final_norm = "ln_f",
                               .attention_norm = "ln_1",
                               .mlp_norm = "ln_2",
                               .qkv = "attn.c_attn",
                               .o = "attn.c_proj",
                               .up = "mlp.c_fc",
                               .down = "mlp.c_proj",
                               .is_transposed = true};
constexpr TensorNames kOpt = {.prefix = "model.",
                              .embedding = "decoder.embed_tokens",
                              .positions = "decoder.embed_positions",
                              .project_in = "decoder.project_in",
                              .project_out = "decoder.project_out",
                              .layers = "decoder.layers.",
                              .final_norm = "decoder.final_layer_norm",
                              .attention_norm = "self_attn_layer_norm",
                              .mlp_norm = "final_layer_norm",
                              .o = "self_attn.out_proj",
                              .up = "fc1",
                              .down = "fc2"};

constexpr Family kFamilies[] = {
    {"Llama 2, 3, 3.1, 3.2", "LlamaForCausalLM", "llama", ReadLlama, kLlama},
    {"Mistral", "MistralForCausalLM", "mistral", ReadMistral, kLlama},
    {"Mixtral", "MixtralForCausalLM", "mixtral", ReadMixtral, kMixtral},
    {"Qwen2, Qwen2.5", "Qwen2ForCausalLM", "qwen2", ReadQwen2, kLlama},
    {"Qwen3", "Qwen3ForCausalLM", "qwen3", ReadQwen3, kLlama},
    {"Qwen3-MoE", "Qwen3MoeForCausalLM", "qwen3_moe", ReadQwen3Moe, kLlama},
    {"Gemma 2", "Gemma2ForCausalLM", "gemma2", ReadGemma2, kGemma},
    {"Gemma 3 (text)", "Gemma3ForCausalLM", "gemma3_text", ReadGemma3, kGemma},
    {"Phi-3, Phi-3.5", "Phi3ForCausalLM", "phi3", ReadPhi3, kPhi3},
    {"DeepSeek-V2, V2-Lite", "DeepseekV2ForCausalLM", "deepseek_v2", ReadDeepseekV2, kLlama},
    {"DeepSeek-V3", "DeepseekV3ForCausalLM", "deepseek_v3", ReadDeepseekV3, kLlama},
    {"gpt-oss", "GptOssForCausalLM", "gpt_oss", ReadGptOss, kGptOss},
    {"Falcon 7B, 11B, 40B, 180B, rw", "FalconForCausalLM", "falcon", ReadFalcon, kFalcon},
    {"GPT-2", "GPT2LMHeadModel", "gpt2", ReadGpt2, kGpt2},
    {"OPT", "OPTForCausalLM", "opt", ReadOpt, kOpt},
};

}  // namespace

absl::Span<const Family> Families() { return kFamilies; }

const Family* FindFamily(absl::string_view architecture) {
  for (const Family& family : kFamilies) {
    if (family.architecture == architecture) return &family;
  }
  return nullptr;
}

}  // namespace quire
