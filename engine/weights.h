// Weights of a model as the backend holds them: packed matrices, and vectors in float32.

#ifndef QUIRE_ENGINE_WEIGHTS_H_
#define QUIRE_ENGINE_WEIGHTS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/checkpoint.h"
#include "engine/model_config.h"
#include "kernels/backend.h"

namespace quire {

// A float32 vector; data() is nullptr where the model has none.
struct VectorWeight {
  Buffer buffer;

  const float* data() const { return static_cast<const float*>(buffer.data()); }
  explicit operator bool() const { return buffer.data() != nullptr; }
};

struct NormWeights {
  VectorWeight weight, bias;  // [hidden] each; RMSNorm has no bias

  explicit operator bool() const { return static_cast<bool>(weight); }
};

// A matrix and, in some families, its bias.
struct Projection {
  LinearWeight weight;  // [n, k]
  VectorWeight bias;    // [n]

  explicit operator bool() const { return weight.n != 0; }
};

struct MlpWeights {
  Projection up;    // [2 * intermediate, hidden]: gate, then up; [intermediate, hidden] where the MLP has no gate
  Projection down;  // [hidden, intermediate]
};

struct MoeWeights {
  Projection router;                  // [num_experts, hidden]
  VectorWeight correction_bias;       // [num_experts]
  std::vector<LinearWeight> gate_up;  // [num_experts], each [2 * intermediate, hidden]: gate, then up
  std::vector<LinearWeight> down;     // [num_experts], each [hidden, intermediate]
  VectorWeight gate_up_bias;          // [num_experts, 2 * intermediate]
  VectorWeight down_bias;             // [num_experts, hidden]
  MlpWeights shared;
};

struct LatentWeights {
  Projection q_a;                  // [q_rank, hidden]; none where q is not compressed
  NormWeights q_a_norm;            // [q_rank]
  Projection q;                    // [q_heads * (nope_dim + rope_dim), q_rank or hidden]
  Projection kv_a;                 // [kv_rank + rope_dim, hidden]
  NormWeights kv_a_norm;           // [kv_rank]
  std::vector<LinearWeight> k_up;  // [q_heads], each [kv_rank, nope_dim]: W_uk transposed, as it is absorbed into q
  std::vector<LinearWeight> v_up;  // [q_heads], each [v_dim, kv_rank]: W_uv
};

struct LayerWeights {
  NormWeights attention_norm;       // before attention; after its sum in BlockKind::kPostNorm
  NormWeights post_attention_norm;  // BlockKind::kSandwich
  Projection qkv;                   // [(q_heads + 2 * kv_heads) * head_dim, hidden]: q, then k, then v
  NormWeights q_norm, k_norm;       // [head_dim]
  VectorWeight sinks;               // [q_heads]
  LatentWeights latent;             // in place of qkv
  Projection o;                     // [hidden, q_heads * head_dim (or v_dim)]
  NormWeights mlp_norm;             // as attention_norm; none where BlockKind::kParallel shares that one
  NormWeights post_mlp_norm;        // BlockKind::kSandwich
  MlpWeights mlp;                   // of a dense layer
  MoeWeights moe;                   // of the others
};

struct Weights {
  LinearWeight embedding;  // [vocab, embedding_size]
  LinearWeight positions;  // [num_learned_positions, hidden]
  Projection project_in;   // [hidden, embedding_size] where the two differ
  std::vector<LayerWeights> layers;
  NormWeights final_norm;
  Projection project_out;  // [embedding_size, hidden]
  LinearWeight lm_head;    // [vocab, embedding_size]; empty where the embedding is tied: see head()

  const LinearWeight& head() const { return lm_head.n == 0 ? embedding : lm_head; }
  // The norm in front of the head. In BlockKind::kPostNorm it is the last layer's, which waits until it is known which
  // rows the head needs.
  const NormWeights& last_norm() const { return final_norm ? final_norm : layers.back().mlp_norm; }
};

// Checks that `checkpoint` has every tensor that the model needs in its shape and no other, but for those that
// checkpoints of the family carry and nobody reads. INVALID_ARGUMENT in one line names the tensor, what was found and
// what is allowed.
absl::Status CheckTensors(const ModelConfig& config, const Checkpoint& checkpoint);

// Whether what a checkpoint has quantised stays so, to be multiplied by integer dot products: unless float32 is asked
// for of all that enters one.
constexpr bool KeepsBlocks(WeightFormat format) { return format.dtype != DType::kFloat32 || format.quantized(); }

// Called by the loading thread with the device bytes of the weights packed so far.
using LoadProgress = std::function<void(uint64_t bytes)>;

// Packs a checkpoint: numbers as `format`, int4 as int8 for embedding and head; what is quantised stays as it is.
// REQUIRES: CheckTensors is OK. RESOURCE_EXHAUSTED when the device has not enough memory.
absl::StatusOr<Weights> LoadWeights(const ModelConfig& config, WeightFormat format, const Checkpoint& checkpoint,
                                    Backend& backend, const LoadProgress& progress = nullptr);

// Random weights, the same for the same seed whatever the threads: uniform, of variance 1 / cols so that activations
// keep their scale; norms 1.
absl::StatusOr<Weights> DummyWeights(const ModelConfig& config, WeightFormat format, uint64_t seed, Backend& backend,
                                     const LoadProgress& progress = nullptr);

// Device bytes of either; those of a checkpoint that is quantised itself need the checkpoint.
uint64_t WeightBytes(const ModelConfig& config, WeightFormat format, const Backend& backend,
                     const Checkpoint* checkpoint = nullptr);

}  // namespace quire

#endif  // QUIRE_ENGINE_WEIGHTS_H_
