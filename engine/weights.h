// Weights of a Llama-family model as the backend holds them: packed matrices and float32 norms.

#ifndef QUIRE_ENGINE_WEIGHTS_H_
#define QUIRE_ENGINE_WEIGHTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/checkpoint.h"
#include "engine/model_config.h"
#include "kernels/backend.h"

namespace quire {

struct LayerWeights {
  Buffer attention_norm;  // float32 [hidden]
  LinearWeight qkv;       // [(q_heads + 2 * kv_heads) * head_dim, hidden]: q, then k, then v
  LinearWeight o;         // [hidden, q_heads * head_dim]
  Buffer mlp_norm;        // float32 [hidden]
  LinearWeight gate_up;   // [2 * intermediate, hidden]: gate, then up
  LinearWeight down;      // [hidden, intermediate]
};

struct Weights {
  LinearWeight embedding;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  Buffer final_norm;     // float32 [hidden]
  LinearWeight lm_head;  // [vocab, hidden]; empty where the embedding is tied: see head()

  const LinearWeight& head() const { return lm_head.n == 0 ? embedding : lm_head; }
};

// A tensor that a checkpoint of `config` must have. A vector (a norm) is one row.
struct TensorSpec {
  std::string name;
  int64_t rows = 0;
  int64_t cols = 0;
  bool is_vector = false;
};
std::vector<TensorSpec> ExpectedTensors(const ModelConfig& config);

// Checks that `checkpoint` has every expected tensor in its shape and no other (rotary_emb.inv_freq apart, which old
// checkpoints carry and nobody reads). INVALID_ARGUMENT in one line names the tensor, what was found and what is
// allowed.
absl::Status CheckTensors(const ModelConfig& config, const Checkpoint& checkpoint);

// Packs a checkpoint as `dtype`. REQUIRES: CheckTensors is OK. RESOURCE_EXHAUSTED when the device has not enough
// memory.
absl::StatusOr<Weights> LoadWeights(const ModelConfig& config, DType dtype, const Checkpoint& checkpoint,
                                    Backend& backend);

// Random weights, the same for the same seed whatever the threads: uniform, of variance 1 / cols so that activations
// keep their scale; norms 1.
absl::StatusOr<Weights> DummyWeights(const ModelConfig& config, DType dtype, uint64_t seed, Backend& backend);

// Device bytes of either.
uint64_t WeightBytes(const ModelConfig& config, DType dtype, const Backend& backend);

}  // namespace quire

#endif  // QUIRE_ENGINE_WEIGHTS_H_
