// BackendModelRunner: the ModelRunner that runs a Model on a Backend over a paged cache.
//
// Launch copies the blocks that outputs of one prompt share no longer, flattens the batch's chunks into rows, runs the
// model over them, draws tokens from the last row of each chunk that samples and scores the prompt rows that a request
// asked for. The head runs over slices of at most max_head_rows rows, so that logits never need more memory than
// planned. Everything that a step touches is allocated at start; only prompt log-probabilities, and many outputs of one
// prompt, may grow their result. The results of two batches are kept: that of the one before feeds the next.
//
// Thread: the engine thread.

#ifndef QUIRE_ENGINE_BACKEND_MODEL_RUNNER_H_
#define QUIRE_ENGINE_BACKEND_MODEL_RUNNER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/activations.h"
#include "engine/memory_plan.h"
#include "engine/model.h"
#include "engine/model_runner.h"
#include "kernels/backend.h"
#include "kvcache/kv_cache.h"

namespace quire {

class BackendModelRunner : public ModelRunner {
 public:
  // Allocates cache, activations and workspaces as `plan` says. `weights` live in `backend`'s memory.
  static absl::StatusOr<std::unique_ptr<BackendModelRunner>> Create(const ModelConfig& config, const MemoryPlan& plan,
                                                                    Weights weights, std::unique_ptr<Backend> backend);

  absl::Status Launch(const Batch& batch) override;
  absl::StatusOr<const StepResult*> Collect() override { return &results_[num_collected_++ % results_.size()]; }

  const KvCache& kv_cache() const { return cache_; }

 private:
  BackendModelRunner(const MemoryPlan& plan, std::unique_ptr<Backend> backend, Model model, KvCache cache,
                     Activations activations);

  // Of the batch launched last.
  StepResult& result() { return results_[(num_launched_ - 1) % results_.size()]; }
  // Of the one before.
  const StepResult& previous_result() const { return results_[num_launched_ % results_.size()]; }
  // Fills ids_, positions_ and groups_ from the batch.
  void FlattenRows(const Batch& batch);
  // Fills kept_rows_ and kept_ends_ from the batch.
  void ChooseKeptRows(const Batch& batch);
  // One token to draw: from the last row of a chunk of the batch, for its sequence's output or one after it.
  struct Draw {
    int32_t chunk;
    uint32_t output;
  };

  // Draws the tokens of each chunk that samples: .sampled, .more_sampled and .top of the result.
  void Sample(const Batch& batch);
  void SampleSlice(absl::Span<const Draw> slice, const Batch& batch);
  // Scores the rows of a chunk whose successor is a prompt token: appends to .prompt_logprobs and .prompt_top.
  // Its first row is the model's kept row `first_row`.
  void ScorePrompt(const Chunk& chunk, int32_t first_row);

  std::unique_ptr<Backend> backend_;  // first: the others' memory is its
  Model model_;
  KvCache cache_;
  Activations activations_;
  const int32_t max_head_rows_;

  // Rows of the step, [num_rows] each.
  std::vector<uint32_t> ids_;
  std::vector<int32_t> positions_;
  // The same for each group of layers.
  struct GroupRows {
    std::vector<int64_t> slots;          // [num_rows]
    std::vector<AttentionChunk> chunks;  // [chunks of the batch]
  };
  std::vector<GroupRows> groups_;           // [groups of the cache's spec]
  std::vector<KvGroupInput> group_inputs_;  // views of groups_

  std::vector<int32_t> kept_rows_;  // [<= num_rows], increasing: those of which somebody wants logits
  std::vector<int32_t> kept_ends_;  // [chunks of the batch]: how many of them are a chunk's or before it

  std::vector<Draw> draws_;  // of the step

  // Of one slice of the head.
  std::vector<int32_t> head_rows_;      // [<= max_head_rows]
  std::vector<SamplingParams> params_;  // [<= max_head_rows]
  std::vector<SampleRow> sample_rows_;  // [<= max_head_rows]
  std::vector<SampledToken> sampled_;   // [max_head_rows]
  std::vector<TokenLogprob> top_;       // [max_head_rows, kMaxTop]
  std::vector<uint32_t> targets_;       // [<= max_head_rows]

  // Of batch number b, from 0: results_[b % 2].
  std::array<StepResult, 2> results_;
  uint64_t num_launched_ = 0;
  uint64_t num_collected_ = 0;
};

}  // namespace quire

#endif  // QUIRE_ENGINE_BACKEND_MODEL_RUNNER_H_
