// BackendModelRunner: the ModelRunner that runs a Model on a Backend over a paged cache.
//
// Launch copies the blocks that outputs of one prompt share no longer, flattens the batch's chunks into rows, runs the
// model over them, draws tokens from the last row of each chunk that samples and scores the prompt rows that a request
// asked for. The head runs over slices of at most max_head_rows rows, so that logits never need more memory than
// planned. Everything that a step touches is allocated at start; only prompt log-probabilities, and many outputs of one
// prompt, may grow their result.
//
// Where the backend runs ahead, Launch returns while the device works. Two steps are kept: what the one before draws
// feeds the one that is launched, by the index of the draw, whether the host has seen the token or not.
//
// A step of nothing but decodes is filled up to the next of plan.graph_rows with rows of nobody, and all between its
// ids and its logits is one replay of a graph, where the backend has them.
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
  absl::StatusOr<const StepResult*> Collect() override;

  const KvCache& kv_cache() const { return cache_; }

 private:
  BackendModelRunner(const MemoryPlan& plan, std::unique_ptr<Backend> backend, Model model, KvCache cache,
                     Activations activations);

  // One token to draw: from the last row of a chunk of the batch, for its sequence's output or one after it.
  struct Draw {
    int32_t chunk;
    uint32_t output;
    int32_t num_top;  // log-probabilities
  };
  // A batch that is launched, until it is collected and feeds no other any more.
  struct Step {
    std::vector<Draw> draws;            // in the order of the chunks
    std::vector<uint32_t> first_draws;  // [chunks]: the index of a chunk's first draw, if it samples
    std::vector<SampledToken> sampled;  // [draws]
    std::vector<TokenLogprob> top;      // [draws, kMaxTop]
    StepResult result;
  };

  // The batch that is being launched, and the one before.
  Step& this_step() { return steps_[(num_launched_ - 1) % steps_.size()]; }
  const Step& previous_step() const { return steps_[num_launched_ % steps_.size()]; }

  // Rows of a step that is replayed as a graph, and where it leaves its logits.
  struct GraphStep {
    int32_t rows;
    Tensor logits;  // once it was made
  };

  // Runs the model over the rows of the step.
  void Forward();
  // The graph for a batch; nullptr if it is not of decodes only, or there are none.
  GraphStep* GraphFor(const Batch& batch);
  // Fills up the rows of the step and runs the model over them, as far as the logits.
  void Replay(GraphStep& graph);
  // Runs every kernel once, at every number of rows for which linears may have an algorithm of their own, up to the
  // most that a step has in max_chunks chunks of max_length: drivers load code, and libraries choose, at first calls,
  // which takes time and memory. Before the first batch.
  absl::Status WarmUp(int32_t max_chunks, int32_t max_length);
  void WarmUpStep(int32_t num_rows, int32_t max_chunks);
  // Makes all graphs, before the first batch.
  absl::Status MakeGraphs();
  // Points group_inputs_ at groups_.
  void ViewGroups();
  // Fills ids_, positions_ and groups_ from the batch.
  void FlattenRows(const Batch& batch);
  // Fills kept_rows_ and kept_ends_ from the batch.
  void ChooseKeptRows(const Batch& batch);
  // Draws the tokens of each chunk that samples, from `logits` [draws, vocab], or, without, from those of kept rows.
  void Sample(const Batch& batch, const Tensor* logits);
  // Those of the draws [begin, end) of the step.
  void SampleSlice(int32_t begin, int32_t end, const Batch& batch, const Tensor* all_logits);
  // Sizes what ScorePrompt fills: it stays where it is until the step is collected.
  void MakeRoomForScores(const Batch& batch);
  // Scores the rows of a chunk whose successor is a prompt token, behind those scored before. Its first row is the
  // model's kept row `first_row`.
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

  // Of one slice of the head.
  std::vector<int32_t> head_rows_;      // [<= max_head_rows]
  std::vector<SamplingParams> params_;  // [<= max_head_rows]
  std::vector<SampleRow> sample_rows_;  // [<= max_head_rows]
  std::vector<uint32_t> targets_;       // [<= max_head_rows]

  size_t num_scored_ = 0, num_scored_top_ = 0;  // prompt rows of the step so far, and what is told beside them

  std::vector<GraphStep> graph_steps_;  // by rising rows

  std::array<Step, 2> steps_;  // of batch number b, from 0: [b % 2]
  uint64_t num_launched_ = 0;
  uint64_t num_collected_ = 0;
};

}  // namespace quire

#endif  // QUIRE_ENGINE_BACKEND_MODEL_RUNNER_H_
