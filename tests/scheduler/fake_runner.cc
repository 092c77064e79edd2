#include "tests/scheduler/fake_runner.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

bool IsStopId(const Request& request, uint32_t token) {
  return std::find(request.stop_ids.begin(), request.stop_ids.end(), token) != request.stop_ids.end();
}

// Whether the token at `position` may not be a stop id: token number j (from 1) may be one only if j >= min_tokens.
bool BansStopIdsAt(const Request& request, int32_t position) {
  return position - int64_t(request.prompt.size()) + 1 < int64_t{request.min_tokens};
}

uint64_t FingerprintOfSalt(const Request& request) {
  uint64_t fingerprint;
  std::memcpy(&fingerprint, request.root_hash.data(), sizeof(fingerprint));
  return fingerprint;
}

}  // namespace

FakeRunner::FakeRunner(const SchedulerOptions& options)
    : layout_{.block_size = options.block_size, .windows = options.kv_windows},
      run_ahead_(options.run_ahead),
      slots_(size_t(options.num_blocks) * options.block_size, 0),
      suspect_(options.num_blocks) {}

uint32_t FakeRunner::TokenAt(const Request& request, int32_t position, uint32_t index) {
  uint32_t token = TestRandom::Mix((request.sampling.seed + index) * 1000003 + position) % kVocabSize;
  while (BansStopIdsAt(request, position) && IsStopId(request, token)) token = (token + 1) % kVocabSize;
  return token;
}

float FakeRunner::LogprobAt(const Request& request, int32_t position) {
  return -static_cast<float>(TestRandom::Mix(request.sampling.seed + 7 * position) % 1000);
}

bool FakeRunner::IsFiniteAt(const Request& request, int32_t position, uint32_t index) {
  const uint64_t seed = request.sampling.seed + index;
  return (seed & 0xff) != 0xff || position != int32_t(request.prompt.size() + (seed >> 8));
}

FakeRunner::Output FakeRunner::OutputOf(const Request& request, uint32_t index) {
  Output output;
  for (auto position = static_cast<int32_t>(request.prompt.size()); IsFiniteAt(request, position, index); ++position) {
    const uint32_t token = TokenAt(request, position, index);
    output.tokens.push_back(token);
    if (IsStopId(request, token) && !BansStopIdsAt(request, position)) {
      output.finish = FinishReason::kStop;
    } else if (output.tokens.size() == request.max_tokens) {
      output.finish = FinishReason::kLength;
    }
    if (output.finish != FinishReason::kNone) break;
  }
  return output;
}

void FakeRunner::Run(const Batch& batch, StepResult& result) {
  not_finite_.emplace_back();
  ScrubBlocks(batch);
  CopyBlocks(batch);
  result.sampled.resize(batch.chunks.size());
  result.more_sampled.clear();
  result.top.clear();
  result.prompt_logprobs.clear();
  result.prompt_top.clear();
  for (size_t i = 0; i < batch.chunks.size(); ++i) {
    const Chunk& chunk = batch.chunks[i];
    const Request& request = chunk.sequence->request();
    RunChunk(chunk);
    if (chunk.scores_prompt) Score(chunk, result);
    result.sampled[i] = {.id = UINT32_MAX};  // unspecified unless the chunk samples
    if (!chunk.samples) continue;
    const int32_t position = chunk.begin + chunk.count;
    for (int32_t draw = 0; draw < chunk.num_draws; ++draw) {
      const uint32_t index = chunk.sequence->index() + static_cast<uint32_t>(draw);
      const SampledToken sampled = {.id = TokenAt(request, position, index),
                                    .finite = IsFiniteAt(request, position, index),
                                    .logprob = LogprobAt(request, position)};
      if (draw == 0) {
        result.sampled[i] = sampled;
      } else {
        result.more_sampled.push_back(sampled);
        // For it as well the prompt has run.
        max_end_[{request.id, index}] = last_end_[{request.id, index}] = position;
      }
      if (!sampled.finite) not_finite_.back().push_back(chunk.sequence);
      for (uint32_t k = 0; k < request.num_logprobs.value_or(0); ++k) {
        result.top.push_back({k, LogprobAt(request, position) - static_cast<float>(k)});
      }
    }
  }
  if (run_ahead_ == 0) Collect();
  before_.clear();
  for (size_t i = 0; i < batch.chunks.size(); ++i) {
    const Chunk& chunk = batch.chunks[i];
    before_.push_back(
        {chunk.sequence, chunk.begin, chunk.samples ? std::optional<uint32_t>(result.sampled[i].id) : std::nullopt});
  }
}

void FakeRunner::Collect() {
  for (const Sequence* sequence : not_finite_.front()) SuspectBlocks(*sequence);
  not_finite_.pop_front();
}

bool FakeRunner::TakesItsOwn(const Chunk& chunk) const {
  if (run_ahead_ == 0 || chunk.source < 0 || size_t(chunk.source) >= before_.size()) return false;
  const Before& source = before_[chunk.source];
  return source.sequence == chunk.sequence && source.drawn.has_value() && chunk.count == 1 &&
         chunk.begin == static_cast<int32_t>(chunk.sequence->tokens().size());
}

void FakeRunner::ScrubBlocks(const Batch& batch) {
  for (const BlockId block : batch.scrubs) {
    std::fill_n(slots_.begin() + int64_t{block} * layout_.block_size, layout_.block_size, 0);
    suspect_[block] = false;
  }
}

void FakeRunner::SuspectBlocks(const Sequence& sequence) {
  for (int32_t group = 0; group < layout_.num_groups(); ++group) {
    for (const BlockId block : sequence.block_table(group).blocks()) suspect_[block] = true;
  }
}

void FakeRunner::CheckHit(const Chunk& chunk) {
  const int32_t num_hit = chunk.begin / layout_.block_size;
  for (int32_t group = 0; group < layout_.num_groups(); ++group) {
    const BlockTable& table = chunk.sequence->block_table(group);
    for (int32_t index = table.num_absent(); index < std::min(num_hit, table.size()); ++index) {
      if (suspect_[table[index]]) Violation(chunk, "finds a block of a failed request in the prefix cache");
    }
  }
}

void FakeRunner::CopyBlocks(const Batch& batch) {
  std::map<BlockId, int> num_named;
  for (const BlockCopy& copy : batch.copies) {
    ++num_named[copy.from];
    ++num_named[copy.to];
    ++block_copies_;
    const auto from = slots_.begin() + int64_t{copy.from} * layout_.block_size;
    std::copy(from, from + layout_.block_size, slots_.begin() + int64_t{copy.to} * layout_.block_size);
    suspect_[copy.to] = suspect_[copy.from];
  }
  for (const BlockCopy& copy : batch.copies) {
    if (num_named[copy.to] > 1) violations_.push_back("a block that a copy writes is named in another");
  }
}

void FakeRunner::RunChunk(const Chunk& chunk) {
  const Sequence& sequence = *chunk.sequence;
  const Request& request = sequence.request();
  const int32_t end = chunk.begin + chunk.count;
  const auto num_tokens = static_cast<int32_t>(sequence.tokens().size()) + (chunk.takes_drawn ? 1 : 0);
  if (chunk.takes_drawn && !TakesItsOwn(chunk)) return Violation(chunk, "takes a token that was not drawn for it");
  if (end != sequence.num_computed()) Violation(chunk, "ends elsewhere than at num_computed");
  if (chunk.count < 1 || end > num_tokens) return Violation(chunk, "is empty or runs past the tokens");
  if (chunk.samples != (end == num_tokens)) Violation(chunk, "samples though it is not the last, or does not");
  if (sequence.BansStopIdsAt(num_tokens) != BansStopIdsAt(request, num_tokens))
    Violation(chunk, "bans stop ids wrongly");
  const bool stands_for_all = sequence.num_output() == 0 && sequence.index() == 0;
  if (chunk.num_draws != (stands_for_all ? static_cast<int32_t>(request.num_outputs) : 1)) {
    Violation(chunk, "draws for more or fewer outputs than it stands for");
  }
  if (sequence.num_groups() != layout_.num_groups()) return Violation(chunk, "has not a table for each group");
  int32_t& last_end = last_end_[{request.id, sequence.index()}];
  if (std::exchange(last_end, end) != chunk.begin) CheckHit(chunk);
  for (int32_t group = 0; group < layout_.num_groups(); ++group) RunChunkInGroup(chunk, group);

  int32_t& max_end = max_end_[{request.id, sequence.index()}];
  max_end = std::max(max_end, chunk.begin);  // what came from the prefix cache counts as run
  recomputed_tokens_ += std::max(0, std::min(end, max_end) - chunk.begin);
  max_end = std::max(max_end, end);
  partial_chunks_ += chunk.samples ? 0 : 1;
}

void FakeRunner::RunChunkInGroup(const Chunk& chunk, int32_t group) {
  const Sequence& sequence = *chunk.sequence;
  const BlockTable& table = sequence.block_table(group);
  const int32_t window = layout_.windows[group], block_size = layout_.block_size;
  const int32_t end = chunk.begin + chunk.count;
  if (table.size() * block_size < end) return Violation(chunk, "has not blocks enough");
  // What the batch before sees is there until that one is committed.
  int32_t oldest_begin = chunk.begin;
  for (const Before& before : before_) {
    if (run_ahead_ > 0 && before.sequence == &sequence) oldest_begin = std::min(oldest_begin, before.begin);
  }
  if (table.num_absent() > layout_.NumPassed(window, chunk.begin) ||
      table.num_absent() < layout_.NumPassed(window, oldest_begin)) {
    return Violation(chunk, absl::StrCat("keeps ", table.num_absent(), " blocks too many or too few of group ", group));
  }
  const int32_t first_seen = window == 0 ? 0 : std::max(0, chunk.begin - window + 1);
  uint64_t fingerprint = FingerprintOfSalt(sequence.request()) + static_cast<uint64_t>(group);
  for (int32_t position = 0; position < end; ++position) {
    const bool is_drawn = chunk.takes_drawn && position == chunk.begin;
    const uint32_t token = is_drawn ? *before_[chunk.source].drawn : sequence.tokens()[position];
    fingerprint = TestRandom::Mix(fingerprint + token + 1);
    if (position < first_seen) continue;
    const BlockId block = table[position / block_size];
    uint64_t& slot = slots_[size_t(block) * block_size + position % block_size];
    if (position >= chunk.begin) {
      slot = fingerprint;
      if (position % block_size == 0) suspect_[block] = false;
    } else if (slot != fingerprint) {
      return Violation(chunk, absl::StrCat("finds other contents at position ", position, ", block ", block));
    }
  }
}

void FakeRunner::Score(const Chunk& chunk, StepResult& result) {
  const Request& request = chunk.sequence->request();
  const int32_t end = std::min(chunk.begin + chunk.count, chunk.sequence->num_prompt() - 1);
  for (int32_t row = chunk.begin; row < end; ++row) {
    result.prompt_logprobs.push_back(LogprobAt(request, row + 1));
    for (uint32_t k = 0; k < request.num_prompt_logprobs.value_or(0); ++k) {
      result.prompt_top.push_back({k, LogprobAt(request, row + 1) - static_cast<float>(k)});
    }
  }
}

void FakeRunner::Violation(const Chunk& chunk, const std::string& what) {
  violations_.push_back(absl::StrCat("the chunk of ", chunk.count, " tokens from ", chunk.begin, " of request ",
                                     chunk.sequence->request().id, " ", what));
}

}  // namespace quire
