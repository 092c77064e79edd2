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

// Each tensor has max_rows (max_head_rows) rows; a step uses the first ones.
struct Activations {
  Tensor residual;   // float32 [rows, hidden]: the residual stream
  Tensor normed;     // dtype   [rows, hidden]
  Tensor qkv;        // float32 [rows, (q_heads + 2 * kv_heads) * head_dim]
  Tensor attended;   // dtype   [rows, q_heads * head_dim]
  Tensor gate_up;    // float32 [rows, 2 * intermediate]
  Tensor activated;  // dtype   [rows, intermediate]
  Tensor head_in;    // dtype   [head rows, hidden]
  Tensor logits;     // float32 [head rows, vocab]
  Buffer memory;     // all of the above

  static uint64_t Bytes(const ModelConfig& config, const ActivationShape& shape);
  static absl::StatusOr<Activations> Create(const ModelConfig& config, const ActivationShape& shape, Backend& backend);
};

}  // namespace quire

#endif  // QUIRE_ENGINE_ACTIVATIONS_H_
