#include "engine/backend_model_runner.h"

#include <algorithm>
#include <limits>
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
  return std::unique_ptr<BackendModelRunner>(
      new BackendModelRunner(plan, std::move(backend), *std::move(model), *std::move(cache), *std::move(activations)));
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
  draws_.reserve(max_chunks);
  head_rows_.reserve(max_head_rows_);
  params_.reserve(max_head_rows_);
  sample_rows_.reserve(max_head_rows_);
  sampled_.resize(max_head_rows_);
  top_.resize(size_t(max_head_rows_) * kMaxTop);
  targets_.reserve(max_head_rows_);
  for (StepResult& result : results_) {
    result.sampled.reserve(max_chunks);
    result.top.reserve(max_chunks * kMaxTop);
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
  model_.Forward({.num_rows = static_cast<int64_t>(ids_.size()),
                  .ids = ids_.data(),
                  .positions = positions_.data(),
                  .groups = group_inputs_,
                  .kept_rows = kept_rows_},
                 cache_, activations_);
  Sample(batch);
  result().prompt_logprobs.clear();
  result().prompt_top.clear();
  for (size_t c = 0; c < batch.chunks.size(); ++c) {
    if (batch.chunks[c].scores_prompt) ScorePrompt(batch.chunks[c], kept_ends_[c] - batch.chunks[c].count);
  }
  return backend_->EndStep();
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
    for (int32_t position = chunk.begin; position < end; ++position) {
      ids_.push_back(chunk.takes_drawn ? previous_result().sampled[chunk.source].id : tokens[position]);
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

void BackendModelRunner::Sample(const Batch& batch) {
  draws_.clear();
  for (size_t c = 0; c < batch.chunks.size(); ++c) {
    if (!batch.chunks[c].samples) continue;
    for (int32_t output = 0; output < batch.chunks[c].num_draws; ++output)
      draws_.push_back({.chunk = static_cast<int32_t>(c), .output = static_cast<uint32_t>(output)});
  }
  result().sampled.resize(batch.chunks.size());
  result().more_sampled.clear();
  result().top.clear();
  const absl::Span<const Draw> all = draws_;
  for (size_t begin = 0; begin < all.size(); begin += max_head_rows_)
    SampleSlice(all.subspan(begin, max_head_rows_), batch);
}

void BackendModelRunner::SampleSlice(absl::Span<const Draw> slice, const Batch& batch) {
  head_rows_.clear();
  params_.clear();
  sample_rows_.clear();
  for (const Draw& draw : slice) {
    const Sequence& sequence = *batch.chunks[draw.chunk].sequence;
    const Request& request = sequence.request();
    head_rows_.push_back(kept_ends_[draw.chunk] - 1);
    params_.push_back(request.sampling);
    params_.back().seed += sequence.index() + draw.output;
    const int32_t position = batch.chunks[draw.chunk].begin + batch.chunks[draw.chunk].count;
    const bool bans = sequence.BansStopIdsAt(position);
    sample_rows_.push_back({.params = &params_.back(),  // has room for all: it stays where it is
                            .position = static_cast<uint64_t>(position),
                            .allowed = request.allowed_ids,
                            .banned = bans ? absl::MakeConstSpan(request.stop_ids) : absl::Span<const uint32_t>(),
                            .bias = request.logit_bias,
                            .counts = sequence.counts(),
                            .wants_logprob = request.num_logprobs.has_value(),
                            .num_top = static_cast<int32_t>(request.num_logprobs.value_or(0))});
    Check(sample_rows_.back().num_top <= kMaxTop, "more log-probabilities asked for than the sampler gives");
  }
  const Tensor logits = model_.Logits(head_rows_, activations_);
  for (int64_t r = 0; r < logits.rows; ++r) {
    if (Reached(FailPoint::kNaNRow)) SpoilRow(logits, r, *backend_);
  }
  backend_->Sample({.logits = logits,
                    .rows = sample_rows_.data(),
                    .tokens = sampled_.data(),
                    .top = top_.data(),
                    .top_stride = kMaxTop});
  for (size_t r = 0; r < slice.size(); ++r) {
    if (slice[r].output == 0) {
      result().sampled[slice[r].chunk] = sampled_[r];
    } else {
      result().more_sampled.push_back(sampled_[r]);
    }
    const auto top = top_.begin() + static_cast<int64_t>(r) * kMaxTop;
    result().top.insert(result().top.end(), top, top + sample_rows_[r].num_top);
  }
}

void BackendModelRunner::ScorePrompt(const Chunk& chunk, int32_t first_row) {
  const absl::Span<const uint32_t> tokens = chunk.sequence->tokens();
  const auto num_top = static_cast<int32_t>(chunk.sequence->request().num_prompt_logprobs.value_or(0));
  // The prompt's last position has no successor in it.
  const int32_t end = std::min(chunk.begin + chunk.count, chunk.sequence->num_prompt() - 1);
  for (int32_t begin = chunk.begin; begin < end; begin += max_head_rows_) {
    const int32_t count = std::min(max_head_rows_, end - begin);
    head_rows_.clear();
    targets_.clear();
    for (int32_t position = begin; position < begin + count; ++position) {
      head_rows_.push_back(first_row + position - chunk.begin);
      targets_.push_back(tokens[position + 1]);
    }
    const Tensor logits = model_.Logits(head_rows_, activations_);
    const size_t num_logprobs = result().prompt_logprobs.size(), num_tops = result().prompt_top.size();
    result().prompt_logprobs.resize(num_logprobs + count);
    result().prompt_top.resize(num_tops + size_t(count) * num_top);
    backend_->Score({.logits = logits,
                     .targets = targets_.data(),
                     .num_top = num_top,
                     .logprobs = result().prompt_logprobs.data() + num_logprobs,
                     .top = result().prompt_top.data() + num_tops});
  }
}

}  // namespace quire
