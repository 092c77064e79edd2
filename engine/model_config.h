// ModelConfig: what a checkpoint's architecture computes, read from config.json and validated. Families differ by this
// description and by a table of tensor names (engine/config/registry.h), not by code of their own: Model::Forward is
// one loop.
//
// A model directory is untrusted: every number is checked, every key that would change the result is read or refused.

#ifndef QUIRE_ENGINE_MODEL_CONFIG_H_
#define QUIRE_ENGINE_MODEL_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/config/rope_config.h"
#include "kernels/activation/activation.h"
#include "kernels/dtype.h"
#include "kernels/gated_activation/gated_activation.h"
#include "kernels/moe/moe.h"
#include "nlohmann/json.hpp"

namespace quire {

enum class NormKind {
  kRms,    // Zhang and Sennrich 2019
  kLayer,  // Ba et al. 2016, with bias
};

// Where the norms of a block stand; f is attention, then the MLP.
enum class BlockKind {
  kPreNorm,   // x += f(norm(x))
  kSandwich,  // x += norm'(f(norm(x)))                          (Gemma 2)
  kPostNorm,  // x = norm(x + f(x))                              (Vaswani 2017; OPT-350M)
  kParallel,  // x += attention(norm(x)) + mlp(norm'(x))         (PaLM: Chowdhery 2022; Falcon), norm' may be norm
};

// Rows of a fused projection of q, k and v in the file.
enum class QkvLayout {
  kSeparate,  // three tensors
  kFused,     // all of q, all of k, all of v
  kByKvHead,  // for each KV head its group of q, its k, its v
};

// Multi-head latent attention (DeepSeek-V2, §2.1): the cache holds one normed latent and one rotary key per token.
struct LatentConfig {
  int32_t q_rank = 0;  // 0: q is not compressed
  int32_t kv_rank = 0;
  int32_t nope_dim = 0;  // of a head: q and k without position
  int32_t rope_dim = 0;  // of a head: q and k with position; k's is shared by all heads
  int32_t v_dim = 0;     // of a head
  // W_uk transposed and W_uv are tensors of their own, [heads, kv_rank, nope_dim] and [heads, v_dim, kv_rank].
  bool split_kv_b = false;

  int32_t CacheDim() const { return kv_rank + rope_dim; }  // elements per token and layer
};

enum class ExpertLayout {
  kSeparate,     // each expert's matrices by name; biases of gate, up and down as [experts, rows]
  kStacked,      // one tensor [experts, in, out] of all, gate and up in alternate columns (gpt-oss)
  kStackedMxfp4  // the same as [experts, out, in], 32 values of 4 bits to a scale of 8 (OCP MX)
};

struct MoeConfig {
  int32_t num_experts = 0;
  int32_t top_k = 0;
  int32_t intermediate_size = 0;         // of an expert
  int32_t shared_intermediate_size = 0;  // of the experts that every token visits, as one MLP; 0: none
  RouteScore score = RouteScore::kSoftmax;
  bool normalize = false;  // chosen weights sum to one
  float routed_scale = 1;
  int32_t num_groups = 1, top_groups = 1;  // only experts of the best groups may be chosen (kernels/moe)
  RouteGroupScore group_score = RouteGroupScore::kMax;
  bool correction_bias = false;  // of the choice (DeepSeek-V3)
  bool router_bias = false, expert_bias = false;
  ExpertLayout layout = ExpertLayout::kSeparate;
  Gate gate;
};

// What differs from layer to layer.
struct LayerConfig {
  int32_t window = 0;                // tokens that a row sees, itself included; 0: all
  std::optional<int32_t> rope = {};  // index into ModelConfig::ropes; none: K is not rotated
  float scale = 0;                   // of attention scores
  bool is_moe = false;               // else a dense MLP of intermediate_size
};

struct ModelConfig {
  std::string architecture;  // e.g. "LlamaForCausalLM"
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t embedding_size = 0;  // of a token's vector; hidden_size but for OPT-350M, which projects in and out
  int32_t intermediate_size = 0;
  int32_t num_layers = 0;
  int32_t q_heads = 0;
  int32_t kv_heads = 0;  // divides q_heads
  int32_t head_dim = 0;
  int32_t max_position_embeddings = 0;
  int32_t max_scaled_len = 0;  // tokens that the RoPE scaling allows, >= max_position_embeddings
  bool tie_word_embeddings = false;
  DType dtype = DType::kBFloat16;  // the checkpoint's

  BlockKind block = BlockKind::kPreNorm;
  NormKind norm = NormKind::kRms;
  float norm_eps = 1e-5f;
  bool norm_adds_one = false;  // weights are stored as w - 1 (Gemma)
  bool final_norm = true;
  bool shares_norm = false;  // kParallel: the MLP reads attention's norm

  // Matrices are [out, in] and fused ones in plain order, whatever the family's tensors are like elsewhere: llama.cpp's
  // converter makes them so.
  bool plain_layout = false;
  QkvLayout qkv_layout = QkvLayout::kSeparate;
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  bool qk_norm = false;                // RMSNorm of each head of q and k (Qwen3, Gemma 3)
  bool has_sinks = false;              // a logit per query head that joins the softmax's denominator (gpt-oss)
  bool has_alibi = false;              // Press 2022
  float attention_softcap = 0;         // s = cap tanh(s / cap); 0: none
  std::optional<LatentConfig> latent;  // in place of k and v heads

  bool gated_mlp = true;       // gate(g(x)) * u(x), else activation(u(x))
  bool fused_gate_up = false;  // g and u are one tensor
  Gate gate;
  ActivationKind activation = ActivationKind::kSilu;
  std::optional<MoeConfig> moe;

  float embedding_scale = 1.0;
  float logits_softcap = 0;             // 0: none
  int32_t num_learned_positions = 0;    // rows of the table; 0: none
  int32_t learned_position_offset = 0;  // position p reads row p + offset

  std::vector<RopeConfig> ropes;
  std::vector<LayerConfig> layers;  // [num_layers]

  // Columns of the fused q, k and v.
  int64_t QkvCols() const { return (int64_t{q_heads} + 2 * int64_t{kv_heads}) * head_dim; }
  // Columns of what attention gives to the output projection.
  int64_t AttendedCols() const { return int64_t{q_heads} * (latent.has_value() ? latent->v_dim : head_dim); }
  // Parameters of the model (tied ones once).
  uint64_t NumParameters() const;
};

// Reads config.json of a directory, or the metadata of a GGUF file. INVALID_ARGUMENT in one line names the file, the
// key, what was found and what is allowed.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& path);

// The same from the text of a config.json, or from its object; `name` is what messages call it.
absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view text, absl::string_view name);
absl::StatusOr<ModelConfig> ModelConfigFromJson(const nlohmann::json& object, absl::string_view name);

}  // namespace quire

#endif  // QUIRE_ENGINE_MODEL_CONFIG_H_
