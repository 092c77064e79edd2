// Model: the weights of a decoder-only transformer of the Llama family and its forward pass (Touvron 2023: pre-norm
// with RMSNorm, rotary embeddings, SwiGLU; grouped-query attention: Ainslie 2023).
//
// Families differ by config, not by copies of the loop. Knows rows, positions and slots; nothing of sequences or
// requests. Thread: the engine thread.

#ifndef QUIRE_ENGINE_MODEL_H_
#define QUIRE_ENGINE_MODEL_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/activations.h"
#include "engine/model_config.h"
#include "engine/rope_table.h"
#include "engine/weights.h"
#include "kernels/backend.h"
#include "kvcache/kv_cache.h"

namespace quire {

// Where the rows of a step stand in the cache, in one group of layers.
struct KvGroupInput {
  const int64_t* slots = nullptr;  // [num_rows]: block * block_size + slot, where the row's K and V go
  absl::Span<const AttentionChunk> chunks;
};

// The rows of one step: the chunks of all its sequences, one after another.
struct ModelInput {
  int64_t num_rows = 0;
  const uint32_t* ids = nullptr;          // [num_rows]
  const int32_t* positions = nullptr;     // [num_rows]
  absl::Span<const KvGroupInput> groups;  // [groups of the cache's spec]
};

class Model {
 public:
  // `backend` outlives the model.
  static absl::StatusOr<Model> Create(const ModelConfig& config, Weights weights, int32_t max_model_len,
                                      Backend* backend);

  const ModelConfig& config() const { return config_; }

  // Runs all layers over the rows: K and V of every row are in `cache` afterwards, the residual stream in
  // activations.residual.
  void Forward(const ModelInput& input, const KvCache& cache, Activations& activations) const;

  // The logits of some of those rows, [rows.size(), vocab]; a view of `activations` that holds until the next call.
  // REQUIRES: rows.size() <= max_head_rows.
  Tensor Logits(absl::Span<const int32_t> rows, Activations& activations) const;

 private:
  Model(const ModelConfig& config, Weights weights, RopeTable rope, Backend* backend);

  ModelConfig config_;
  Weights weights_;
  RopeTable rope_;
  Backend* backend_;
};

}  // namespace quire

#endif  // QUIRE_ENGINE_MODEL_H_
