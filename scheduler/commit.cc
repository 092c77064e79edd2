// Scheduler's half after a step: what was computed becomes tokens, published blocks and events.

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/attributes.h"
#include "absl/container/inlined_vector.h"
#include "kernels/check.h"
#include "scheduler/scheduler.h"

namespace quire {
namespace {

// Chunks: at 6 ns for each, what it takes to fetch a line from DRAM.
constexpr size_t kFetchAhead = 24;

void Attach(absl::Span<const TokenLogprob> top, TokenEvent& event) {
  if (top.empty()) return;
  event.detail = std::make_shared<TokenEvent::Detail>(TokenEvent::Detail{.top = {top.begin(), top.end()}});
}

}  // namespace

// The functions that a decode step runs for every sequence are inline, each before its caller: a call costs as much as
// what most of them do.

ABSL_ATTRIBUTE_ALWAYS_INLINE inline TokenEvent& Scheduler::CommitToken(absl::Time now, const SampledToken& sampled,
                                                                       Sequence& sequence,
                                                                       std::vector<TokenEvent>& events) {
  sequence.Append(sampled.id);
  ++counters_.sampled_tokens;
  ++counters_.computed_tokens;
  if (options_.policy == SchedulingPolicy::kFair) shares_.Charge(sequence.account_, FairShare::kOutputCost);
  TokenEvent& event = AppendEvent(EventKind::kToken, sequence, now, events);
  event.token_id = sampled.id;
  event.logprob = sampled.logprob;
  event.finish = sequence.FinishWith(sampled.id);
  if (event.finish != FinishReason::kNone) EndOutput(sequence);
  return event;
}

void Scheduler::CommitFork(absl::Time now, ChunkResult result, Sequence& sequence, std::vector<TokenEvent>& events) {
  // All share the blocks before the first can be over and give them back. If it was preempted meanwhile, it holds
  // neither seats nor blocks, and all wait.
  if (sequence.running_) num_seats_ -= NumSeats(sequence) - 1;
  sequence.num_outputs_ = 1;
  sequence.may_share_next_ = sequence.running_;
  const absl::Span<const SampledToken> more = result.detail->more_sampled;
  absl::InlinedVector<Sequence*, 16> outputs = {&sequence};
  for (size_t i = 1; i <= more.size(); ++i) outputs.push_back(&Fork(sequence, static_cast<uint32_t>(i)));

  const size_t num_top = result.detail->top.size() / outputs.size();
  for (size_t i = 0; i < outputs.size(); ++i) {
    const SampledToken& sampled = i == 0 ? *result.sampled : more[i - 1];
    Attach(result.detail->top.subspan(i * num_top, num_top), CommitToken(now, sampled, *outputs[i], events));
  }
}

inline void Scheduler::CommitChunk(absl::Time now, ChunkResult result, Sequence& sequence,
                                   std::vector<TokenEvent>& events) {
  const Chunk& chunk = *result.chunk;
  if (!result.IsFinite()) return Fail(now, sequence, events);
  if (chunk.scores_prompt) EmitPromptLogprobs(now, result, sequence, events);

  const int32_t end = chunk.begin + chunk.count;
  sequence.max_computed_ = std::max(sequence.max_computed_, end);
  if (sequence.leaving_) {
    ReleaseBlocks(sequence);
  } else {
    // A prompt is published while it runs, so that others with the same beginning find it; an output when it ends.
    if (chunk.begin < sequence.num_prompt_) {
      PublishBlocks(sequence, std::min(sequence.num_prompt_hashes_, end / options_.block_size));
    }
    if (has_windows_) sequence.blocks_.ReleasePassed(end);
  }
  if (!chunk.samples) return;

  if (chunk.num_draws > 1) return CommitFork(now, result, sequence, events);
  TokenEvent& event = CommitToken(now, *result.sampled, sequence, events);
  if (chunk.brings_more) Attach(result.detail->top, event);
}

void Scheduler::DiscardChunk(ChunkResult result, Sequence& sequence) {
  const int32_t num_draws = result.chunk->samples ? result.chunk->num_draws : 0;
  counters_.computed_tokens += num_draws;
  counters_.discarded_tokens += num_draws;
  if (!result.IsFinite()) Distrust(sequence);
}

void Scheduler::Commit(absl::Time now, const Batch& batch, const StepResult& result, std::vector<TokenEvent>& events) {
  if (batch.empty()) return;
  Check(num_in_flight_ > 0 && batch.number == num_batches_ - num_in_flight_ + 1,
        "another batch than the oldest in flight is committed");
  const absl::Span<const Chunk> chunks = batch.chunks;
  StepReader reader(result, chunks.size());
  int32_t num_draws = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const Chunk& chunk = chunks[i];
    Sequence& sequence = *chunk.sequence;
    // Where the next token goes may be a line that nobody has touched: a write that waits for memory holds up all
    // behind it. So it is fetched well before, and what says where it is before that.
    chunks[std::min(i + 2 * kFetchAhead, chunks.size() - 1)].sequence->Prefetch();
    if (i + kFetchAhead < chunks.size()) {
      const absl::Span<const uint32_t> tokens = chunks[i + kFetchAhead].sequence->tokens();
      __builtin_prefetch(tokens.data() + tokens.size());
    }
    const ChunkResult chunk_result = reader.Next(chunk);
    --sequence.num_launched_;
    sequence.num_in_flight_ -= chunk.samples ? 1 : 0;
    num_draws += chunk.samples ? 1 : 0;
    if (chunk.begin < sequence.max_computed_) {
      const int32_t num_again = std::min(chunk.begin + chunk.count, sequence.max_computed_) - chunk.begin;
      counters_.recomputed_tokens += num_again;
      counters_.computed_tokens += num_again;
    }
    if (sequence.leaving_ && sequence.ended_) {
      DiscardChunk(chunk_result, sequence);
    } else {
      CommitChunk(now, chunk_result, sequence, events);
    }
  }
  --num_in_flight_;
  const absl::Time scheduled_at = std::exchange(scheduled_at_[0], scheduled_at_[1]);
  EraseEnded();
  ++counters_.steps;
  // It began when it was scheduled, or when the batch before it was done.
  const absl::Time begin = std::max(scheduled_at, std::exchange(committed_at_, now));
  load_.OnStep(now, now - begin, batch.num_tokens, batch.num_tokens - num_draws);
}

void Scheduler::EraseEnded() {
  for (auto it = ended_.begin(); it != ended_.end();) {
    const auto next = std::next(it);
    if (it->num_launched_ == 0) {
      ReleaseBlocks(*it);
      ended_.erase(it);
    }
    it = next;
  }
}

void Scheduler::EndOutput(Sequence& sequence) {
  load_.OnOutput(sequence.num_output());
  Remove(sequence);
}

void Scheduler::PublishBlocks(Sequence& sequence, int32_t end) {
  if (end <= sequence.num_published_ || !options_.enable_prefix_caching || !sequence.FeedsPrefixCache()) return;
  // A token that was drawn in vain may have run; nobody knows its name.
  const auto num_known = static_cast<int32_t>(sequence.tokens_.size());
  end = std::min(end, std::min(sequence.num_computed_, num_known) / options_.block_size);
  const int32_t begin = sequence.num_published_;
  for (int32_t index = begin; index < end; ++index) sequence.blocks_.PrefetchPublish(index, sequence.HashOf(index));
  for (int32_t& index = sequence.num_published_; index < end; ++index) {
    sequence.blocks_.Publish(index, sequence.HashOf(index));
  }
  if (options_.kv_events != nullptr && begin < end) TellStored(sequence, begin, end);
}

void Scheduler::TellStored(Sequence& sequence, int32_t begin, int32_t end) {
  // Of a block with a salt nobody is told: whoever routes by tokens alone would take it for one without.
  if (sequence.request().root_hash != unsalted_) return;
  std::optional<BlockHash> parent;
  if (begin > 0) parent = InGroup(sequence.HashOf(begin - 1), prefix_group_);
  for (int32_t index = begin; index < end; ++index) {
    const BlockHash name = InGroup(sequence.HashOf(index), prefix_group_);
    if (index >= sequence.block_table(prefix_group_).num_absent()) {  // no window has passed it
      options_.kv_events->Stored(name, parent ? &*parent : nullptr,
                                 sequence.tokens().subspan(size_t(index) * options_.block_size, options_.block_size));
    }
    parent = name;
  }
}

void Scheduler::ReleaseBlocks(Sequence& sequence) {
  if (sequence.failed_) {
    sequence.blocks_.AppendTo(suspects_);
  } else {
    PublishBlocks(sequence, sequence.blocks_.size());
  }
  sequence.blocks_.Clear();
  sequence.num_published_ = 0;
  sequence.num_computed_ = 0;
  if (!std::exchange(sequence.leaving_, false)) return;
  --num_leaving_;
  blocked_ = nullptr;
}

void Scheduler::LeaveLater(Sequence& sequence) {
  if (!std::exchange(sequence.leaving_, true)) ++num_leaving_;
}

void Scheduler::EmitPromptLogprobs(absl::Time now, ChunkResult result, const Sequence& sequence,
                                   std::vector<TokenEvent>& events) {
  // After a preemption the chunk may begin with rows whose scores are out already.
  const size_t num_known = std::max(0, sequence.max_computed_ - result.chunk->begin);
  const absl::Span<const float> logprobs = result.detail->prompt_logprobs.subspan(num_known);
  const absl::Span<const TokenLogprob> top =
      result.detail->prompt_top.subspan(num_known * *sequence.request().num_prompt_logprobs);
  TokenEvent& event = AppendEvent(EventKind::kPromptLogprobs, sequence, now, events);
  event.first_position =
      result.chunk->begin + static_cast<uint32_t>(num_known) + 1;  // a row scores the position after it
  event.detail = std::make_shared<TokenEvent::Detail>(
      TokenEvent::Detail{.top = {top.begin(), top.end()}, .logprobs = {logprobs.begin(), logprobs.end()}});
}

void Scheduler::Fail(absl::Time now, Sequence& sequence, std::vector<TokenEvent>& events) {
  const RequestId id = sequence.request().id;
  for (const SequenceList::iterator it : by_id_.find(id)->second) Distrust(*it);
  AppendEvent(EventKind::kEnded, sequence, now, events).ending = Ending::kFailed;
  ++counters_.corrupted;
  RemoveAll(id);
}

void Scheduler::Distrust(Sequence& sequence) {
  sequence.failed_ = true;
  sequence.blocks_.Unpublish();
}

void Scheduler::ScrubSuspects(Batch& batch) {
  for (const BlockId block : suspects_) {
    if (pool_.NumReferences(block) == 0) batch.scrubs.push_back(block);
  }
}

}  // namespace quire
