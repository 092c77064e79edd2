// Activations: the memory between one operation of a step and the next, in one allocation made at start.

#ifndef QUIRE_ENGINE_ACTIVATIONS_H_
#define QUIRE_ENGINE_ACTIVATIONS_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/model_config.h"
#include "kernels/backend.h"

namespace quire {

struct ActivationShape {
  DType dtype = DType::kBFloat16;  // of what enters a dot product; sums are float32
  int64_t max_rows = 0;            // of a step
  int64_t max_head_rows = 0;       // of logits at once
};

// Those that the model does not need have no columns.
struct ActivationTensors {
  Tensor residual;    // float32 [rows, hidden]: the residual stream
  Tensor normed;      // dtype   [rows, hidden]: what attention reads, and the MLP
  Tensor mlp_normed;  // dtype   [rows, hidden]: what the MLP reads beside attention (BlockKind::kParallel)
  Tensor branch;      // float32 [rows, hidden]: of attention or MLP, before its norm (BlockKind::kSandwich)
  Tensor embedded;    // float32 [rows, embedding_size], where that is not hidden_size
  Tensor projected;   // dtype   [rows, embedding_size], likewise

  Tensor qkv;       // float32 [rows, (q_heads + 2 * kv_heads) * head_dim]
  Tensor attended;  // dtype   [rows, q_heads * head_dim (or v_dim)]

  // Latent attention.
  Tensor q_a;              // float32 [rows, q_rank]
  Tensor q_a_normed;       // dtype   [rows, q_rank]
  Tensor q;                // float32 [rows, q_heads * (nope_dim + rope_dim)]
  Tensor kv;               // float32 [rows, kv_rank + rope_dim]
  Tensor q_latent;         // float32 [rows, LatentHeads() * kv_rank]
  Tensor attended_latent;  // float32 [rows, LatentHeads() * kv_rank]

  Tensor up;         // float32 [rows, 2 * intermediate]: gate, then up; [rows, intermediate] without a gate
  Tensor activated;  // dtype   [rows, intermediate]

  Tensor router;                    // float32 [rows, num_experts]
  int32_t* experts = nullptr;       // [rows, top_k]
  float* expert_weights = nullptr;  // [rows, top_k]

  Tensor head_in;         // dtype   [head rows, hidden]
  Tensor head_embedded;   // float32 [head rows, embedding_size], where that is not hidden_size
  Tensor head_projected;  // dtype   [head rows, embedding_size], likewise
  Tensor logits;          // float32 [head rows, vocab]

  // The first rows of all that has `rows` rows; what has `head rows` is left as it is.
  ActivationTensors Rows(int64_t count) const;
};

// Tensors of max_rows (max_head_rows) rows and the memory of all of them.
struct Activations : ActivationTensors {
  Buffer memory;

  static uint64_t Bytes(const ModelConfig& config, const ActivationShape& shape);
  static absl::StatusOr<Activations> Create(const ModelConfig& config, const ActivationShape& shape, Backend& backend);
};

// Query heads that latent attention takes at once: as many as keep a row's absorbed queries within 32 KiB.
int32_t LatentHeads(const ModelConfig& config);

// The widest matrix that an operation writes or reads, in columns.
int64_t MaxActivationCols(const ModelConfig& config);

}  // namespace quire

#endif  // QUIRE_ENGINE_ACTIVATIONS_H_
