#include "engine/backend_model_runner.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "kernels/check.h"
#include "kernels/fail_point.h"

namespace quire {
namespace {

constexpr int32_t kMaxTop = 20;  // most log-probabilities that a request may ask for (kernels/sampling)

// FailPoint::kNaNRow.
[[maybe_unused]] void SpoilRow(const Tensor& logits, int64_t row, Backend& backend) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  Check(backend.CopyToDevice(logits.Row<float>(row), &kNaN, sizeof kNaN).ok(), "no NaN on the device");
}

// Rows of a chunk that score a prompt token: the prompt's last position has no successor in it.
int32_t NumScored(const Chunk& chunk) {
  return std::min(chunk.begin + chunk.count, chunk.sequence->num_prompt() - 1) - chunk.begin;
}

}  // namespace

absl::StatusOr<std::unique_ptr<BackendModelRunner>> BackendModelRunner::Create(const ModelConfig& config,
                                                                               const MemoryPlan& plan, Weights weights,
                                                                               std::unique_ptr<Backend> backend) {
  if (absl::Status status = backend->AllocateWorkspace(plan.workspace_shape); !status.ok()) return status;
  absl::StatusOr<KvCache> cache = KvCache::Create(plan.kv, plan.num_blocks, *backend);
  if (!cache.ok()) return cache.status();
  absl::StatusOr<Activations> activations = Activations::Create(config, plan.activation_shape, *backend);
  if (!activations.ok()) return activations.status();
  absl::StatusOr<Model> model = Model::Create(config, std::move(weights), plan.max_model_len, backend.get());
  if (!model.ok()) return model.status();
  std::unique_ptr<BackendModelRunner> runner(
      new BackendModelRunner(plan, std::move(backend), *std::move(model), *std::move(cache), *std::move(activations)));
  if (!plan.lazy_graphs && runner->backend_->kind() == BackendKind::kCuda) {
    if (absl::Status status = runner->WarmUp(plan.scheduler.max_num_seqs, plan.max_model_len); !status.ok())
      return status;
    if (absl::Status status = runner->MakeGraphs(); !status.ok()) return status;
  }
  return runner;
}

BackendModelRunner::BackendModelRunner(const MemoryPlan& plan, std::unique_ptr<Backend> backend, Model model,
                                       KvCache cache, Activations activations)
    : backend_(std::move(backend)),
      model_(std::move(model)),
      cache_(std::move(cache)),
      activations_(std::move(activations)),
      max_head_rows_(static_cast<int32_t>(plan.activation_shape.max_head_rows)) {
  const auto max_rows = static_cast<size_t>(plan.activation_shape.max_rows);
  const auto max_chunks = static_cast<size_t>(plan.scheduler.max_num_seqs);
  ids_.reserve(max_rows);
  positions_.reserve(max_rows);
  groups_.resize(cache_.spec().groups.size());
  for (GroupRows& group : groups_) {
    group.slots.reserve(max_rows);
    group.chunks.reserve(max_chunks);
  }
  group_inputs_.resize(groups_.size());
  kept_rows_.reserve(max_rows);
  kept_ends_.reserve(max_chunks);
  head_rows_.reserve(max_head_rows_);
  params_.reserve(max_head_rows_);
  sample_rows_.reserve(max_head_rows_);
  targets_.reserve(max_head_rows_);
  for (const int32_t rows : plan.graph_rows) graph_steps_.push_back({.rows = rows, .logits = {}});
  for (Step& step : steps_) {
    step.draws.reserve(max_chunks);
    step.first_draws.reserve(max_chunks);
    step.sampled.reserve(max_chunks);
    step.top.reserve(max_chunks * kMaxTop);
    step.result.sampled.reserve(max_chunks);
    step.result.top.reserve(max_chunks * kMaxTop);
  }
}

absl::Status BackendModelRunner::Launch(const Batch& batch) {
  Reached(FailPoint::kSlowStep);
  if (Reached(FailPoint::kRunnerError)) return absl::InternalError("fail point: the device is gone");
  if (absl::Status status = backend_->BeginStep(); !status.ok()) return status;
  if (!batch.scrubs.empty()) {
    backend_->ScrubBlocks({.regions = cache_.regions().data(),
                           .num_regions = static_cast<int32_t>(cache_.regions().size()),
                           .blocks = batch.scrubs.data(),
                           .num_blocks = static_cast<int32_t>(batch.scrubs.size())});
  }
  if (!batch.copies.empty()) {
    backend_->CopyBlocks({.regions = cache_.regions().data(),
                          .num_regions = static_cast<int32_t>(cache_.regions().size()),
                          .copies = batch.copies.data(),
                          .num_copies = static_cast<int32_t>(batch.copies.size())});
  }
  ++num_launched_;
  FlattenRows(batch);
  ChooseKeptRows(batch);
  if (GraphStep* const graph = GraphFor(batch)) {
    Replay(*graph);
    Sample(batch, &graph->logits);
  } else {
    Forward();
    Sample(batch, nullptr);
  }
  MakeRoomForScores(batch);
  for (size_t c = 0; c < batch.chunks.size(); ++c) {
    if (batch.chunks[c].scores_prompt) ScorePrompt(batch.chunks[c], kept_ends_[c] - batch.chunks[c].count);
  }
  return backend_->EndStep();
}

absl::StatusOr<const StepResult*> BackendModelRunner::Collect() {
  Step& step = steps_[num_collected_++ % steps_.size()];
  if (absl::Status status = backend_->AwaitStep(); !status.ok()) return status;
  StepResult& result = step.result;
  result.sampled.resize(step.first_draws.size());
  result.more_sampled.clear();
  result.top.clear();
  for (size_t d = 0; d < step.draws.size(); ++d) {
    const Draw& draw = step.draws[d];
    if (draw.output == 0) {
      result.sampled[draw.chunk] = step.sampled[d];
    } else {
      result.more_sampled.push_back(step.sampled[d]);
    }
    const auto top = step.top.begin() + static_cast<int64_t>(d) * kMaxTop;
    result.top.insert(result.top.end(), top, top + draw.num_top);
  }
  return &result;
}

void BackendModelRunner::Forward() {
  model_.Forward({.num_rows = static_cast<int64_t>(ids_.size()),
                  .ids = ids_.data(),
                  .drawn = previous_step().sampled.data(),
                  .positions = positions_.data(),
                  .groups = group_inputs_,
                  .kept_rows = kept_rows_},
                 cache_, activations_);
}

BackendModelRunner::GraphStep* BackendModelRunner::GraphFor(const Batch& batch) {
  const bool only_decodes = std::all_of(batch.chunks.begin(), batch.chunks.end(), [](const Chunk& chunk) {
    return chunk.count == 1 && chunk.samples && chunk.num_draws == 1 && !chunk.scores_prompt;
  });
  if (!only_decodes) return nullptr;
  const auto it = std::lower_bound(graph_steps_.begin(), graph_steps_.end(), batch.num_tokens,
                                   [](const GraphStep& step, int32_t rows) { return step.rows < rows; });
  return it == graph_steps_.end() ? nullptr : &*it;
}

void BackendModelRunner::Replay(GraphStep& graph) {
  for (auto row = static_cast<int32_t>(ids_.size()); row < graph.rows; ++row) {
    ids_.push_back(0);
    positions_.push_back(0);
    kept_rows_.push_back(row);
    for (GroupRows& group : groups_) {
      group.slots.push_back(kNoSlot);
      group.chunks.push_back({.block_table = nullptr, .first_row = row, .num_rows = 0, .first_position = 0});
    }
  }
  ViewGroups();
  head_rows_.resize(static_cast<size_t>(graph.rows));
  std::iota(head_rows_.begin(), head_rows_.end(), 0);
  backend_->Replay(graph.rows, [&] {
    Forward();
    graph.logits = model_.Logits(head_rows_, activations_);
  });
}

absl::Status BackendModelRunner::WarmUp(int32_t max_chunks, int32_t max_length) {
  const int64_t max_rows = std::min(int64_t{max_chunks} * max_length, activations_.residual.rows);
  for (int64_t rows = 1;; rows = std::min(2 * rows, max_rows)) {
    if (absl::Status status = backend_->BeginStep(); !status.ok()) return status;
    WarmUpStep(static_cast<int32_t>(rows), max_chunks);
    absl::Status status = backend_->EndStep();
    status.Update(backend_->AwaitStep());
    if (!status.ok() || rows == max_rows) return status;
  }
}

void BackendModelRunner::WarmUpStep(int32_t num_rows, int32_t max_chunks) {
  // Prompts as short as they can be, that all begin in the same blocks: nobody holds them yet.
  const int32_t block_size = cache_.spec().block_size;
  const int32_t length = num_rows == 1 ? 1 : std::max(2, (num_rows + max_chunks - 1) / max_chunks);
  std::vector<BlockId> table(static_cast<size_t>((length + block_size - 1) / block_size));
  std::iota(table.begin(), table.end(), 0);
  FlattenRows(Batch());
  for (int32_t first = 0; first < num_rows; first += length) {
    const int32_t count = std::min(length, num_rows - first);
    for (int32_t position = 0; position < count; ++position) {
      ids_.push_back(0);
      positions_.push_back(position);
      for (GroupRows& group : groups_) group.slots.push_back(position);
    }
    for (GroupRows& group : groups_)
      group.chunks.push_back({.block_table = table.data(), .first_row = first, .num_rows = count, .first_position = 0});
  }
  ViewGroups();
  head_rows_.resize(static_cast<size_t>(std::min(num_rows, max_head_rows_)));
  std::iota(head_rows_.begin(), head_rows_.end(), 0);
  kept_rows_.assign(head_rows_.begin(), head_rows_.end());
  Forward();
  const Tensor logits = model_.Logits(head_rows_, activations_).Rows(0, 1);

  const SamplingParams greedy{.temperature = 0};
  SampleRow row;
  row.params = &greedy;
  Step& step = steps_[0];
  step.sampled.resize(1);
  step.top.resize(kMaxTop);
  backend_->Sample(
      {.logits = logits, .rows = &row, .tokens = step.sampled.data(), .top = step.top.data(), .top_stride = kMaxTop});
  const uint32_t target = 0;
  step.result.prompt_logprobs.resize(1);
  backend_->Score({.logits = logits,
                   .targets = &target,
                   .num_top = 0,
                   .logprobs = step.result.prompt_logprobs.data(),
                   .top = nullptr});
}

absl::Status BackendModelRunner::MakeGraphs() {
  // From the largest: what a graph takes beside its nodes shows with the first.
  for (auto graph = graph_steps_.rbegin(); graph != graph_steps_.rend(); ++graph) {
    if (absl::Status status = backend_->BeginStep(); !status.ok()) return status;
    FlattenRows(Batch());
    kept_rows_.clear();
    Replay(*graph);
    absl::Status status = backend_->EndStep();
    status.Update(backend_->AwaitStep());
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void BackendModelRunner::FlattenRows(const Batch& batch) {
  Check(batch.num_tokens <= activations_.residual.rows, "a batch has more rows than planned");
  ids_.clear();
  positions_.clear();
  for (GroupRows& group : groups_) {
    group.slots.clear();
    group.chunks.clear();
  }
  const int32_t block_size = cache_.spec().block_size;
  for (const Chunk& chunk : batch.chunks) {
    const auto first_row = static_cast<int32_t>(ids_.size());
    const int32_t end = chunk.begin + chunk.count;
    const absl::Span<const uint32_t> tokens = chunk.sequence->tokens();
    if (chunk.takes_drawn) ids_.push_back(kDrawn | previous_step().first_draws[chunk.source]);
    for (int32_t position = chunk.begin; position < end; ++position) {
      if (!chunk.takes_drawn) ids_.push_back(tokens[position]);
      positions_.push_back(position);
    }
    for (size_t g = 0; g < groups_.size(); ++g) {
      const BlockTable& table = chunk.sequence->block_table(static_cast<int32_t>(g));
      groups_[g].chunks.push_back({.block_table = table.data(),
                                   .first_row = first_row,
                                   .num_rows = chunk.count,
                                   .first_position = chunk.begin});
      for (int32_t position = chunk.begin; position < end; ++position) {
        groups_[g].slots.push_back(int64_t{table[position / block_size]} * block_size + position % block_size);
      }
    }
  }
  ViewGroups();
}

void BackendModelRunner::ViewGroups() {
  for (size_t g = 0; g < groups_.size(); ++g) {
    group_inputs_[g] = {.slots = groups_[g].slots.data(), .chunks = groups_[g].chunks};
  }
}

void BackendModelRunner::ChooseKeptRows(const Batch& batch) {
  kept_rows_.clear();
  kept_ends_.clear();
  int32_t end = 0;
  for (const Chunk& chunk : batch.chunks) {
    end += chunk.count;
    const int32_t num_kept = chunk.scores_prompt ? chunk.count : chunk.samples ? 1 : 0;
    for (int32_t row = end - num_kept; row < end; ++row) kept_rows_.push_back(row);
    kept_ends_.push_back(static_cast<int32_t>(kept_rows_.size()));
  }
}

void BackendModelRunner::Sample(const Batch& batch, const Tensor* logits) {
  Step& step = this_step();
  step.draws.clear();
  step.first_draws.clear();
  for (size_t c = 0; c < batch.chunks.size(); ++c) {
    const Chunk& chunk = batch.chunks[c];
    step.first_draws.push_back(static_cast<uint32_t>(step.draws.size()));
    if (!chunk.samples) continue;
    const auto num_top = static_cast<int32_t>(chunk.sequence->request().num_logprobs.value_or(0));
    Check(num_top <= kMaxTop, "more log-probabilities asked for than the sampler gives");
    for (int32_t output = 0; output < chunk.num_draws; ++output)
      step.draws.push_back({static_cast<int32_t>(c), static_cast<uint32_t>(output), num_top});
  }
  step.sampled.resize(step.draws.size());
  step.top.resize(step.draws.size() * kMaxTop);
  const auto num_draws = static_cast<int32_t>(step.draws.size());
  for (int32_t begin = 0; begin < num_draws; begin += max_head_rows_)
    SampleSlice(begin, std::min(num_draws, begin + max_head_rows_), batch, logits);
}

void BackendModelRunner::SampleSlice(int32_t begin, int32_t end, const Batch& batch, const Tensor* all_logits) {
  head_rows_.clear();
  params_.clear();
  sample_rows_.clear();
  Step& step = this_step();
  for (int32_t d = begin; d < end; ++d) {
    const Draw& draw = step.draws[d];
    const Chunk& chunk = batch.chunks[draw.chunk];
    const Sequence& sequence = *chunk.sequence;
    const Request& request = sequence.request();
    head_rows_.push_back(kept_ends_[draw.chunk] - 1);
    params_.push_back(request.sampling);
    params_.back().seed += sequence.index() + draw.output;
    const int32_t position = chunk.begin + chunk.count;
    const bool bans = sequence.BansStopIdsAt(position);
    sample_rows_.push_back({.params = &params_.back(),  // has room for all: it stays where it is
                            .position = static_cast<uint64_t>(position),
                            .allowed = request.allowed_ids,
                            .banned = bans ? absl::MakeConstSpan(request.stop_ids) : absl::Span<const uint32_t>(),
                            .bias = request.logit_bias,
                            .counts = sequence.counts(),
                            .drawn = chunk.takes_drawn && !sequence.counts().empty()
                                         ? std::optional(previous_step().first_draws[chunk.source])
                                         : std::nullopt,
                            .wants_logprob = request.num_logprobs.has_value(),
                            .num_top = draw.num_top});
  }
  const Tensor logits =
      all_logits != nullptr ? all_logits->Rows(begin, end - begin) : model_.Logits(head_rows_, activations_);
  for (int64_t r = 0; r < logits.rows; ++r) {
    if (Reached(FailPoint::kNaNRow)) SpoilRow(logits, r, *backend_);
  }
  backend_->Sample({.logits = logits,
                    .rows = sample_rows_.data(),
                    .tokens = step.sampled.data() + begin,
                    .top = step.top.data() + int64_t{begin} * kMaxTop,
                    .top_stride = kMaxTop,
                    .drawn = previous_step().sampled.data()});
}

void BackendModelRunner::MakeRoomForScores(const Batch& batch) {
  size_t num_rows = 0, num_top = 0;
  for (const Chunk& chunk : batch.chunks) {
    if (!chunk.scores_prompt) continue;
    num_rows += NumScored(chunk);
    num_top += size_t(NumScored(chunk)) * *chunk.sequence->request().num_prompt_logprobs;
  }
  this_step().result.prompt_logprobs.resize(num_rows);
  this_step().result.prompt_top.resize(num_top);
  num_scored_ = num_scored_top_ = 0;
}

void BackendModelRunner::ScorePrompt(const Chunk& chunk, int32_t first_row) {
  StepResult& result = this_step().result;
  const absl::Span<const uint32_t> tokens = chunk.sequence->tokens();
  const auto num_top = static_cast<int32_t>(*chunk.sequence->request().num_prompt_logprobs);
  const int32_t end = chunk.begin + NumScored(chunk);
  for (int32_t begin = chunk.begin; begin < end; begin += max_head_rows_) {
    const int32_t count = std::min(max_head_rows_, end - begin);
    head_rows_.clear();
    targets_.clear();
    for (int32_t position = begin; position < begin + count; ++position) {
      head_rows_.push_back(first_row + position - chunk.begin);
      targets_.push_back(tokens[position + 1]);
    }
    backend_->Score({.logits = model_.Logits(head_rows_, activations_),
                     .targets = targets_.data(),
                     .num_top = num_top,
                     .logprobs = result.prompt_logprobs.data() + num_scored_,
                     .top = result.prompt_top.data() + num_scored_top_});
    num_scored_ += static_cast<size_t>(count);
    num_scored_top_ += size_t(count) * num_top;
  }
}

}  // namespace quire
