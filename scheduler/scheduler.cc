#include "scheduler/scheduler.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/check.h"

namespace quire {
namespace {

// Why the sequence is complete now that `token` is its last, or kNone.
FinishReason FinishOf(const Sequence& sequence, uint32_t token) {
  const Request& request = sequence.request();
  const auto num_output = static_cast<uint32_t>(sequence.num_output());
  const bool is_stop = std::find(request.stop_ids.begin(), request.stop_ids.end(), token) != request.stop_ids.end();
  if (is_stop && num_output >= request.min_tokens) return FinishReason::kStop;
  return num_output == request.max_tokens ? FinishReason::kLength : FinishReason::kNone;
}

TokenEvent& AppendEvent(EventKind kind, const Sequence& sequence, absl::Time time, std::vector<TokenEvent>& events) {
  TokenEvent& event = events.emplace_back();
  event.kind = kind;
  event.request_id = sequence.request().id;
  event.index = sequence.index();
  event.time = time;
  return event;
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options),
      layout_{.block_size = options.block_size, .windows = options.kv_windows},
      has_windows_(layout_.has_windows()),
      pool_(options.num_blocks),
      first_waiting_(sequences_.end()) {
  Check(options.block_size >= 1 && !options.kv_windows.empty() && options.max_num_seqs >= 1 &&
            options.max_num_batched_tokens >= 1 && options.chunked_prefill_size >= 1,
        "scheduler options out of range");
  in_flight_.reserve(options.max_num_seqs);
}

Scheduler::~Scheduler() = default;

absl::Status Scheduler::Add(std::shared_ptr<const Request> request) {
  if (request->prompt.empty()) return absl::InvalidArgumentError("the prompt is empty; at least 1 token is needed");
  if (request->max_tokens == 0) return absl::InvalidArgumentError("max_tokens is 0; at least 1 is needed");
  const uint64_t len = uint64_t{request->prompt.size()} + request->max_tokens;
  if (len > static_cast<uint64_t>(options_.max_model_len)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("prompt of %d tokens and max_tokens %d are %d tokens; at most %d are allowed",
                        request->prompt.size(), request->max_tokens, len, options_.max_model_len));
  }
  // The last token is drawn but never run: it needs no slot.
  const int64_t num_blocks = layout_.MaxBlocks(static_cast<int64_t>(len - 1));
  if (num_blocks > options_.num_blocks) {
    return absl::InvalidArgumentError(
        absl::StrFormat("prompt of %d tokens and max_tokens %d need %d blocks of the KV cache; it has %d",
                        request->prompt.size(), request->max_tokens, num_blocks, options_.num_blocks));
  }

  const RequestId id = request->id;
  const absl::Time deadline = request->deadline;
  const auto it = sequences_.emplace(sequences_.end(), std::move(request), /*index=*/0, layout_, pool_);
  if (first_waiting_ == sequences_.end()) first_waiting_ = it;
  Check(by_id_.emplace(id, it).second, "a request's id was used before");
  if (deadline != absl::InfiniteFuture()) deadlines_.emplace(deadline, id);
  return absl::OkStatus();
}

void Scheduler::End(RequestId id, Ending ending, std::vector<TokenEvent>& events) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return;
  Sequence& sequence = *found->second;
  AppendEvent(EventKind::kEnded, sequence, absl::Time(), events).ending = ending;
  Remove(sequence);
}

void Scheduler::Drop(RequestId id) {
  const auto found = by_id_.find(id);
  if (found != by_id_.end()) Remove(*found->second);
}

void Scheduler::Pause(RequestId id) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end() || found->second->paused_) return;
  found->second->paused_ = true;
  must_park_ = true;
  head_is_blocked_ = false;
  ++counters_.pauses;
}

void Scheduler::Resume(RequestId id) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return;
  found->second->paused_ = false;
  head_is_blocked_ = false;
}

void Scheduler::Expire(absl::Time now, std::vector<TokenEvent>& events) {
  while (NextDeadline() <= now) End(deadlines_.begin()->second, Ending::kExpired, events);
}

absl::Time Scheduler::NextDeadline() const {
  return deadlines_.empty() ? absl::InfiniteFuture() : deadlines_.begin()->first;
}

void Scheduler::EndAll(Ending ending, std::vector<TokenEvent>& events) {
  while (!sequences_.empty()) End(sequences_.front().request().id, ending, events);
}

void Scheduler::Remove(Sequence& sequence) {
  const Request& request = sequence.request();
  const auto found = by_id_.find(request.id);
  const SequenceList::iterator it = found->second;
  by_id_.erase(found);
  if (request.deadline != absl::InfiniteFuture()) deadlines_.erase({request.deadline, request.id});

  if (sequence.is_running()) --num_running_;
  if (it == first_waiting_) ++first_waiting_;
  head_is_blocked_ = false;
  PublishBlocks(sequence, sequence.blocks_.size());
  if (sequence.in_flight_) {
    sequence.ended_ = true;
    ended_.splice(ended_.end(), sequences_, it);
  } else {
    sequences_.erase(it);
  }
}

// ----------------------------------------------------------------------------------------------------------------------
// Schedule

void Scheduler::Schedule(absl::Time now, Batch& batch, std::vector<TokenEvent>& events) {
  Check(in_flight_.empty(), "the previous batch is not committed");
  batch.clear();
  num_chunked_ = 0;
  if (std::exchange(must_park_, false)) ParkPaused();
  // What was preempted a moment ago stands first in the queue: to admit it again at once would only undo the
  // preemption.
  if (ScheduleRunning(batch)) AdmitWaiting(now, batch, events);
}

void Scheduler::ParkPaused() {
  for (auto it = first_waiting_; it != sequences_.begin();) {
    const auto sequence = std::prev(it);
    if (!sequence->paused_) {
      it = sequence;
      continue;
    }
    ReleaseBlocks(*sequence);
    --num_running_;
    if (it == first_waiting_) it = sequence;
    sequences_.splice(first_waiting_, sequences_, sequence);
    first_waiting_ = sequence;
  }
}

bool Scheduler::ScheduleRunning(Batch& batch) {
  const uint64_t preemptions_before = counters_.preemptions;
  for (auto it = sequences_.begin(); it != first_waiting_; ++it) {
    const int32_t least = it->num_computed() + 1;
    while (it != first_waiting_ && !it->HasSlots(least) && pool_.num_available() < layout_.num_groups())
      PreemptYoungest();
    if (it == first_waiting_) break;  // it was the youngest itself
    // The budget has a token for each: all but the youngest have just one pending, as a prompt that takes what is left
    // of a step lets nobody in behind it; and nobody was admitted without a token of his own.
    AddChunk(*it, batch);
  }
  return counters_.preemptions == preemptions_before;
}

void Scheduler::AdmitWaiting(absl::Time now, Batch& batch, std::vector<TokenEvent>& events) {
  auto next = first_waiting_;
  const auto may_admit = [&] {
    while (next != sequences_.end() && next->paused_) ++next;
    return next != sequences_.end() && num_running_ < options_.max_num_seqs && MaxCount(batch) > 0;
  };
  if (head_is_blocked_ || !may_admit()) return;

  // Blocks that running sequences need soon: who is admitted must not get preempted for them at once.
  int64_t reserved = 0;
  for (auto it = sequences_.begin(); it != first_waiting_; ++it) reserved += it->NumBlocksSoon();
  while (may_admit()) {
    Sequence& sequence = *next;
    if (!TakePrefix(sequence, reserved)) {
      head_is_blocked_ = true;
      return;
    }
    if (!sequence.started_) Start(sequence, now, events);
    const auto admitted = next++;
    if (admitted == first_waiting_) {
      ++first_waiting_;
    } else {
      sequences_.splice(first_waiting_, sequences_, admitted);
    }
    ++num_running_;
    AddChunk(sequence, batch);
    reserved += sequence.NumBlocksSoon();
  }
}

bool Scheduler::TakePrefix(Sequence& sequence, int64_t reserved) {
  if (options_.enable_prefix_caching && sequence.ReadsPrefixCache()) {
    // The last token always runs: the next one is drawn from its row.
    const int32_t max_blocks = (sequence.num_pending() - 1) / options_.block_size;
    const auto name = [&sequence](int32_t index) -> const BlockHash& { return sequence.HashOf(index); };
    sequence.blocks_.AppendHit(name, max_blocks);
  }
  // Alone it is admitted whatever it needs: Add has seen to it that it fits.
  if (num_running_ > 0 && pool_.num_available() < reserved + sequence.NumBlocksSoon()) {
    sequence.blocks_.Clear();
    return false;
  }
  sequence.num_published_ = sequence.blocks_.size();
  sequence.num_computed_ = sequence.blocks_.size() * options_.block_size;
  return true;
}

void Scheduler::Start(Sequence& sequence, absl::Time now, std::vector<TokenEvent>& events) {
  sequence.started_ = true;
  sequence.Reserve();
  counters_.prompt_tokens += sequence.num_prompt();
  if (options_.enable_prefix_caching && sequence.ReadsPrefixCache()) {
    counters_.prefix_queries += sequence.num_prompt();
    counters_.prefix_hits += sequence.num_computed_;
  }
  AppendEvent(EventKind::kStarted, sequence, now, events).cached_tokens = sequence.num_computed_;
}

void Scheduler::PreemptYoungest() {
  --first_waiting_;
  --num_running_;
  ReleaseBlocks(*first_waiting_);
  head_is_blocked_ = false;
  ++counters_.preemptions;
}

int32_t Scheduler::MaxCount(const Batch& batch) const {
  return std::min(options_.max_num_batched_tokens - batch.num_tokens, options_.chunked_prefill_size - num_chunked_);
}

void Scheduler::AddChunk(Sequence& sequence, Batch& batch) {
  const int32_t begin = sequence.num_computed_;
  int32_t count = std::min(std::max(MaxCount(batch), 1), sequence.num_pending());
  if (!sequence.HasSlots(begin + count)) count = AppendBlocks(sequence, count);

  const int32_t end = begin + count;
  const int32_t end_scored =
      std::min(end, sequence.num_prompt() - 1);  // the prompt's last token has no successor in it
  batch.chunks.push_back({
      .sequence = &sequence,
      .begin = begin,
      .count = count,
      .samples = count == sequence.num_pending(),
      .scores_prompt =
          std::max(begin, sequence.max_computed_) < end_scored && sequence.request().num_prompt_logprobs.has_value(),
  });
  batch.num_tokens += count;
  if (sequence.num_pending() > 1) num_chunked_ += count;
  sequence.in_flight_ = true;
  in_flight_.push_back(&sequence);
}

int32_t Scheduler::AppendBlocks(Sequence& sequence, int32_t count) {
  BlockTables& blocks = sequence.blocks_;
  const int64_t max_indices = int64_t{blocks.size()} + pool_.num_available() / layout_.num_groups();
  count = static_cast<int32_t>(std::min<int64_t>(count, max_indices * options_.block_size - sequence.num_computed_));
  while (!sequence.HasSlots(sequence.num_computed_ + count)) blocks.AppendNew();
  return count;
}

// ----------------------------------------------------------------------------------------------------------------------
// Commit

struct Scheduler::ChunkResult {
  const Chunk* chunk;
  const SampledToken* sampled;                // if chunk->samples
  absl::Span<const TokenLogprob> top;         // of `sampled`: [num_logprobs]
  absl::Span<const float> prompt_logprobs;    // [scored rows], from row chunk->begin on
  absl::Span<const TokenLogprob> prompt_top;  // [scored rows, num_prompt_logprobs]
};

class Scheduler::ResultReader {
 public:
  ResultReader(const StepResult& result, size_t num_chunks)
      : sampled_(result.sampled.data()),
        top_(result.top),
        prompt_logprobs_(result.prompt_logprobs),
        prompt_top_(result.prompt_top) {
    Check(result.sampled.size() >= num_chunks, "a step's result is shorter than its batch");
  }

  // The part of the next chunk of the batch.
  ChunkResult Next(const Chunk& chunk) {
    ChunkResult result;
    result.chunk = &chunk;
    result.sampled = sampled_++;
    const Request& request = chunk.sequence->request();
    if (chunk.samples && request.num_logprobs) result.top = Take(top_, *request.num_logprobs);
    if (chunk.scores_prompt) {
      const int32_t end = std::min(chunk.begin + chunk.count, chunk.sequence->num_prompt() - 1);
      const size_t num_rows = end - chunk.begin;
      result.prompt_logprobs = Take(prompt_logprobs_, num_rows);
      result.prompt_top = Take(prompt_top_, num_rows * *request.num_prompt_logprobs);
    }
    return result;
  }

 private:
  template <typename T>
  static absl::Span<const T> Take(absl::Span<const T>& rest, size_t count) {
    Check(count <= rest.size(), "a step's result is shorter than its batch");
    const absl::Span<const T> taken = rest.first(count);
    rest.remove_prefix(count);
    return taken;
  }

  // What is still to be read.
  const SampledToken* sampled_;
  absl::Span<const TokenLogprob> top_;
  absl::Span<const float> prompt_logprobs_;
  absl::Span<const TokenLogprob> prompt_top_;
};

void Scheduler::Commit(absl::Time now, const Batch& batch, const StepResult& result, std::vector<TokenEvent>& events) {
  Check(batch.chunks.size() == in_flight_.size(), "another batch than the one in flight is committed");
  if (batch.empty()) return;
  ResultReader reader(result, in_flight_.size());
  for (size_t i = 0; i < in_flight_.size(); ++i) {
    Sequence& sequence = *in_flight_[i];
    const Chunk& chunk = batch.chunks[i];
    Check(chunk.sequence == &sequence, "another batch than the one in flight is committed");
    const ChunkResult chunk_result = reader.Next(chunk);
    sequence.in_flight_ = false;
    counters_.recomputed_tokens +=
        std::max(0, std::min(chunk.begin + chunk.count, sequence.max_computed_) - chunk.begin);
    if (sequence.ended_) {
      counters_.discarded_tokens += chunk.samples ? 1 : 0;
    } else {
      CommitChunk(now, chunk_result, sequence, events);
    }
  }
  in_flight_.clear();
  ended_.clear();  // nothing names them any more: their blocks go back
  ++counters_.steps;
}

void Scheduler::CommitChunk(absl::Time now, const ChunkResult& result, Sequence& sequence,
                            std::vector<TokenEvent>& events) {
  const Chunk& chunk = *result.chunk;
  if (chunk.samples && !result.sampled->finite) return Fail(now, sequence, events);
  if (chunk.scores_prompt) EmitPromptLogprobs(now, result, sequence, events);

  sequence.num_computed_ = chunk.begin + chunk.count;
  sequence.max_computed_ = std::max(sequence.max_computed_, sequence.num_computed_);
  // A prompt is published while it runs, so that others with the same beginning find it; an output when it ends.
  PublishBlocks(sequence, sequence.num_prompt_hashes_);
  if (has_windows_) sequence.blocks_.ReleasePassed(sequence.num_computed_);
  if (!chunk.samples) return;

  const uint32_t token = result.sampled->id;
  sequence.Append(token);
  ++counters_.sampled_tokens;
  TokenEvent& event = AppendEvent(EventKind::kToken, sequence, now, events);
  event.finish = FinishOf(sequence, token);
  event.token_id = token;
  event.logprob = result.sampled->logprob;
  if (!result.top.empty()) event.top.assign(result.top.begin(), result.top.end());
  if (event.finish != FinishReason::kNone) Remove(sequence);
}

void Scheduler::PublishBlocks(Sequence& sequence, int32_t end) {
  if (!options_.enable_prefix_caching || !sequence.FeedsPrefixCache()) return;
  end = std::min(end, sequence.num_computed_ / options_.block_size);
  for (int32_t& index = sequence.num_published_; index < end; ++index) {
    sequence.blocks_.Publish(index, sequence.HashOf(index));
  }
}

void Scheduler::ReleaseBlocks(Sequence& sequence) {
  PublishBlocks(sequence, sequence.blocks_.size());
  sequence.blocks_.Clear();
  sequence.num_published_ = 0;
  sequence.num_computed_ = 0;
}

void Scheduler::EmitPromptLogprobs(absl::Time now, const ChunkResult& result, const Sequence& sequence,
                                   std::vector<TokenEvent>& events) {
  // After a preemption the chunk may begin with rows whose scores are out already.
  const size_t num_known = std::max(0, sequence.max_computed_ - result.chunk->begin);
  const absl::Span<const float> logprobs = result.prompt_logprobs.subspan(num_known);
  const absl::Span<const TokenLogprob> top =
      result.prompt_top.subspan(num_known * *sequence.request().num_prompt_logprobs);
  TokenEvent& event = AppendEvent(EventKind::kPromptLogprobs, sequence, now, events);
  event.first_position =
      result.chunk->begin + static_cast<uint32_t>(num_known) + 1;  // a row scores the position after it
  event.logprobs.assign(logprobs.begin(), logprobs.end());
  event.top.assign(top.begin(), top.end());
}

void Scheduler::Fail(absl::Time now, Sequence& sequence, std::vector<TokenEvent>& events) {
  sequence.blocks_.Unpublish();
  sequence.num_published_ = sequence.blocks_.size();  // and so they stay
  AppendEvent(EventKind::kEnded, sequence, now, events).ending = Ending::kFailed;
  Remove(sequence);
}

SchedulerStats Scheduler::stats() const {
  SchedulerStats stats = counters_;
  stats.num_running = num_running_;
  stats.num_waiting = static_cast<int32_t>(sequences_.size()) - num_running_;
  stats.blocks_free = pool_.num_free();
  stats.blocks_held = pool_.num_held();
  stats.blocks_cached = pool_.num_reclaimable();
  return stats;
}

}  // namespace quire
