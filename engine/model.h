// Model: the weights of a decoder-only transformer and its forward pass (Vaswani 2017; pre-norm with RMSNorm, rotary
// embeddings and SwiGLU: Touvron 2023; grouped-query attention: Ainslie 2023; latent attention and experts:
// DeepSeek-V2).
//
// Families differ by config, not by copies of the loop. Knows rows, positions and slots; nothing of sequences or
// requests. Thread: the engine thread.

#ifndef QUIRE_ENGINE_MODEL_H_
#define QUIRE_ENGINE_MODEL_H_

#include <cstdint>
#include <vector>

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
  const uint32_t* ids = nullptr;          // [num_rows]; may be kDrawn | d (kernels/embedding/embedding.h)
  const SampledToken* drawn = nullptr;    // of the step before, if one is
  const int32_t* positions = nullptr;     // [num_rows]
  absl::Span<const KvGroupInput> groups;  // [groups of the cache's spec]
  // The rows that the head may be asked for, increasing: behind the last attention the others feed nothing.
  absl::Span<const int32_t> kept_rows;
};

class Model {
 public:
  // `backend` outlives the model.
  static absl::StatusOr<Model> Create(const ModelConfig& config, Weights weights, int32_t max_model_len,
                                      Backend* backend);
  // Device bytes of what it computes from the config: rotary tables, slopes.
  static uint64_t TableBytes(const ModelConfig& config, int32_t max_model_len);

  const ModelConfig& config() const { return config_; }

  // Runs all layers over the rows: K and V of every row are in `cache` afterwards, the residual stream of kept_rows[i]
  // is row i of activations.residual.
  void Forward(const ModelInput& input, const KvCache& cache, Activations& activations) const;

  // The logits of some of those rows (0: kept_rows[0]), [rows.size(), vocab]; a view of `activations` that holds until
  // the next call. REQUIRES: rows.size() <= max_head_rows.
  Tensor Logits(absl::Span<const int32_t> rows, Activations& activations) const;

 private:
  Model(const ModelConfig& config, Weights weights, Backend* backend);

  // The steps of Forward, on the rows' part of the activations.
  void Embed(const ModelInput& input, const ActivationTensors& a) const;
  void Attention(int32_t layer, const ModelInput& input, const KvCache& cache, const ActivationTensors& a) const;
  void LatentAttention(int32_t layer, const ModelInput& input, const KvCache& cache, const ActivationTensors& a) const;
  // The rows' part of the activations that the last layer reads behind attention, without the rows that are not kept.
  ActivationTensors Keep(const ModelInput& input, Activations& activations) const;
  void Mlp(const MlpWeights& w, const Tensor& x, const NormWeights& post_norm, const ActivationTensors& a) const;
  void Moe(const MoeWeights& w, const Tensor& x, const ActivationTensors& a) const;

  // y = norm(x), of all rows or of `rows`.
  void Norm(const NormWeights& w, const Tensor& x, const int32_t* rows, const Tensor& y) const;
  // activations.normed = norm(x) of the residual stream; x itself where the norm comes after the sum.
  void NormOrRound(const NormWeights& w, const ActivationTensors& a) const;
  // y = x, rounded.
  void Round(const Tensor& x, const Tensor& y) const;
  // x = RMSNorm(x), head by head.
  void NormHeads(const NormWeights& w, int32_t heads, const Tensor& x) const;
  void Project(const Projection& w, const Tensor& x, const Tensor& y) const;
  // Adds a branch of the block to the residual stream, through `post_norm` if there is one.
  void AddProjection(const Projection& w, const Tensor& x, const NormWeights& post_norm,
                     const ActivationTensors& a) const;

  ModelConfig config_;
  Weights weights_;
  std::vector<RopeTable> ropes_;  // [config.ropes.size()]
  VectorWeight alibi_slopes_;     // [q_heads], each a bfloat16's value
  Backend* backend_;
};

}  // namespace quire

#endif  // QUIRE_ENGINE_MODEL_H_
