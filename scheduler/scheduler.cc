#include "scheduler/scheduler.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/check.h"
#include "kernels/fail_point.h"

namespace quire {
namespace {

int32_t PrefixGroup(const std::vector<int32_t>& windows) {
  const auto full = std::find(windows.begin(), windows.end(), 0);
  return static_cast<int32_t>(full == windows.end() ? 0 : full - windows.begin());
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options),
      layout_{.block_size = options.block_size, .windows = options.kv_windows},
      has_windows_(layout_.has_windows()),
      prefix_group_(PrefixGroup(options.kv_windows)),
      pool_(options.num_blocks),
      shares_(options.max_tenants, options.tenant_weights),
      queue_(options.policy, shares_) {
  Check(options.block_size >= 1 && !options.kv_windows.empty() && options.max_num_seqs >= 1 &&
            options.max_num_batched_tokens >= 1 && options.chunked_prefill_size >= 1 && options.run_ahead >= 0 &&
            options.run_ahead <= kMaxRunAhead,
        "scheduler options out of range");
  pool_.Tell(options.kv_events);
}

Scheduler::~Scheduler() = default;

absl::Status Scheduler::CheckSize(const Request& request) const {
  if (request.prompt.empty()) return absl::InvalidArgumentError("the prompt is empty; at least 1 token is needed");
  if (request.num_outputs == 0) return absl::InvalidArgumentError("num_outputs is 0; at least 1 is needed");
  if (request.max_tokens == 0) return absl::InvalidArgumentError("max_tokens is 0; at least 1 is needed");
  const uint64_t len = uint64_t{request.prompt.size()} + request.max_tokens;
  if (len > static_cast<uint64_t>(options_.max_model_len)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("prompt of %d tokens and max_tokens %d are %d tokens; at most %d are allowed",
                        request.prompt.size(), request.max_tokens, len, options_.max_model_len));
  }
  // The last token is drawn but never run: it needs no slot.
  const int64_t num_blocks = layout_.MaxBlocks(static_cast<int64_t>(len - 1));
  if (num_blocks > options_.num_blocks) {
    return absl::InvalidArgumentError(
        absl::StrFormat("prompt of %d tokens and max_tokens %d need %d blocks of the KV cache; it has %d",
                        request.prompt.size(), request.max_tokens, num_blocks, options_.num_blocks));
  }
  return absl::OkStatus();
}

absl::Status Scheduler::Add(std::shared_ptr<const Request> request) {
  if (absl::Status status = CheckSize(*request); !status.ok()) return status;
  const int32_t num_cached = NumCached(*request);
  Enqueue(std::move(request), num_cached);
  return absl::OkStatus();
}

void Scheduler::Submit(std::shared_ptr<const Request> request, absl::Time now, std::vector<TokenEvent>& events) {
  const auto refuse = [&](const Refusal& refusal) {
    TokenEvent& event = events.emplace_back(EventKind::kEnded, request->id, /*index=*/0, absl::Time());
    event.ending = refusal.ending;
    event.detail = std::make_shared<TokenEvent::Detail>(TokenEvent::Detail{.retry_delay = refusal.retry_delay});
  };
  if (!CheckSize(*request).ok()) return refuse({Ending::kFailed, absl::ZeroDuration()});
  const int32_t num_cached = NumCached(*request);
  const Workload ahead = queue_.Ahead(NextRank(*request), shares_.Find(request->tenant));
  if (const auto refusal = Judge(options_.limits, load_, now, CandidateOf(*request, num_cached, ahead))) {
    return refuse(*refusal);
  }
  Enqueue(std::move(request), num_cached);
}

Candidate Scheduler::CandidateOf(const Request& request, int32_t num_cached, const Workload& ahead) const {
  Candidate candidate;
  candidate.num_tokens = static_cast<int32_t>(request.prompt.size()) - num_cached;
  candidate.max_tokens = request.max_tokens;
  candidate.deadline = request.deadline;
  candidate.ahead = ahead;
  candidate.all = queue_.load();
  candidate.of_tenant = queue_.OfTenant(request.tenant);
  candidate.num_running_tokens = num_running_tokens_;
  // Cached blocks that nobody holds are available until it takes them itself: they count on neither side.
  const int64_t num_blocks = layout_.MaxBlocks(static_cast<int64_t>(request.prompt.size()) + 1) -
                             int64_t{num_cached} / options_.block_size * layout_.num_groups();
  candidate.can_start = ahead.num_sequences == 0 && num_seats_ < MaxSeats() && num_blocks <= pool_.num_available();
  return candidate;
}

Rank Scheduler::NextRank(const Request& request) const {
  const bool by_priority = options_.policy == SchedulingPolicy::kPriority;
  return {by_priority ? request.arrival + request.priority * options_.priority_aging : absl::InfinitePast(),
          num_enqueued_, /*index=*/0};
}

int32_t Scheduler::NumCached(const Request& request) const {
  const bool reads = options_.enable_prefix_caching && request.use_prefix_cache && request.read_prefix_cache &&
                     !request.num_prompt_logprobs;
  if (!reads) return 0;
  // The last token always runs: the next one is drawn from its row.
  const size_t max_blocks = std::min((request.prompt.size() - 1) / options_.block_size, request.prompt_hashes.size());
  size_t num_blocks = 0;
  while (num_blocks < max_blocks && pool_.Lookup(InGroup(request.prompt_hashes[num_blocks], prefix_group_)))
    ++num_blocks;
  return static_cast<int32_t>(num_blocks) * options_.block_size;
}

void Scheduler::Enqueue(std::shared_ptr<const Request> request, int32_t num_cached) {
  const auto it = waiting_.emplace(waiting_.end(), std::move(request), /*index=*/0, layout_, pool_);
  Sequence& sequence = *it;
  sequence.rank_ = NextRank(sequence.request());
  ++num_enqueued_;
  if (options_.policy == SchedulingPolicy::kFair) sequence.account_ = shares_.Open(sequence.request().tenant);
  sequence.expected_tokens_ = sequence.num_pending() - num_cached;
  Check(by_id_.emplace(sequence.request().id, Outputs{it}).second, "a request's id was used before");
  PushWaiting(sequence, /*is_new=*/true);
  timers_.Add(sequence.request());
}

void Scheduler::End(RequestId id, Ending ending, std::vector<TokenEvent>& events) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return;
  AppendEvent(EventKind::kEnded, *found->second[0], absl::Time(), events).ending = ending;
  RemoveAll(id);
}

void Scheduler::Drop(RequestId id, uint32_t index) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return;
  for (const SequenceList::iterator it : found->second) {
    if (it->index() == index) return Remove(*it);
  }
}

void Scheduler::Pause(RequestId id) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end() || found->second[0]->paused_) return;
  ++counters_.pauses;
  for (const SequenceList::iterator it : found->second) {
    it->paused_ = true;
    if (it->running_) {
      must_park_ = true;
    } else {
      queue_.Remove(*it);
      it->queued_ = false;
      blocked_ = nullptr;
    }
  }
}

void Scheduler::Resume(RequestId id) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end() || !found->second[0]->paused_) return;
  for (const SequenceList::iterator it : found->second) {
    it->paused_ = false;
    if (!it->running_) PushWaiting(*it, /*is_new=*/false);
  }
}

void Scheduler::Expire(absl::Time now, std::vector<TokenEvent>& events) {
  while (timers_.Next() <= now) {
    const auto [id, timer] = timers_.First();
    if (timer == Timer::kTimeLimit) {
      for (const SequenceList::iterator it : by_id_.find(id)->second) {
        for (int32_t i = 0; i < it->num_outputs(); ++i) {
          TokenEvent& event = AppendEvent(EventKind::kStopped, *it, now, events);
          event.index += static_cast<uint32_t>(i);
          event.finish = FinishReason::kTimeLimit;
        }
      }
      RemoveAll(id);
    } else {
      End(id, timer == Timer::kDeadline ? Ending::kExpired : Ending::kQueueTimeExceeded, events);
    }
  }
}

void Scheduler::EndAll(Ending ending, std::vector<TokenEvent>& events) {
  std::vector<RequestId> ids;
  for (const auto& [id, outputs] : by_id_) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  for (const RequestId id : ids) End(id, ending, events);
}

void Scheduler::RemoveAll(RequestId id) {
  const Outputs outputs = by_id_.find(id)->second;
  for (const SequenceList::iterator it : outputs) Remove(*it);
}

void Scheduler::Remove(Sequence& sequence) {
  const Request& request = sequence.request();
  const SequenceList::iterator it = PlaceOf(sequence);
  if (sequence.queued_) queue_.Remove(sequence);  // before its account may be closed
  const auto found = by_id_.find(request.id);
  found->second.erase(std::find(found->second.begin(), found->second.end(), it));
  if (found->second.empty()) {
    by_id_.erase(found);
    timers_.Remove(request);
    if (options_.policy == SchedulingPolicy::kFair) shares_.Close(sequence.account_);
  }
  if (sequence.running_) num_seats_ -= NumSeats(sequence);
  blocked_ = nullptr;

  SequenceList& list = sequence.running_ ? running_ : waiting_;
  if (sequence.num_launched_ > 0) {
    sequence.ended_ = true;
    LeaveLater(sequence);
    ended_.splice(ended_.end(), list, it);
  } else {
    ReleaseBlocks(sequence);
    list.erase(it);
  }
}

// ----------------------------------------------------------------------------------------------------------------------
// Schedule

void Scheduler::Schedule(absl::Time now, Batch& batch, std::vector<TokenEvent>& events) {
  Check(num_in_flight_ <= options_.run_ahead, "the previous batch is not committed");
  scheduled_at_[num_in_flight_] = now;
  batch.clear();
  if (!suspects_.empty()) ScrubSuspects(batch);
  num_admitted_ = 0;
  num_chunked_ = 0;
  if (std::exchange(must_park_, false)) ParkPaused();
  if (options_.policy == SchedulingPolicy::kPriority) AdmitBeforeRunning(now, events);
  // What was preempted a moment ago stands first in the queue: to admit it again at once would only undo the
  // preemption.
  if (ScheduleRunning(batch)) AdmitWaiting(now, batch, events);
  load_.OnScheduled(now, num_admitted_, !queue_.empty());
  if (batch.empty()) return;  // it is not run
  batch.number = ++num_batches_;
  ++num_in_flight_;
  suspects_.clear();
}

void Scheduler::ParkPaused() {
  for (auto it = running_.begin(); it != running_.end();) {
    const auto next = std::next(it);
    if (it->paused_) StopRunning(it);
    it = next;
  }
}

int32_t Scheduler::AppendBlocks(Sequence& sequence, int32_t count) {
  BlockTables& blocks = sequence.blocks_;
  const int64_t max_indices = int64_t{blocks.size()} + pool_.num_available() / layout_.num_groups();
  count = static_cast<int32_t>(std::min<int64_t>(count, max_indices * options_.block_size - sequence.num_computed_));
  while (!sequence.HasSlots(sequence.num_computed_ + count)) blocks.AppendNew();
  return count;
}

int32_t Scheduler::MakeRoom(Sequence& sequence, int32_t num_behind, Batch& batch) {
  const int32_t begin = sequence.num_computed_;
  if (sequence.may_share_next_) {
    if (sequence.HasSlots(begin + 1)) sequence.blocks_.Unshare(begin / options_.block_size, batch.copies);
    sequence.may_share_next_ = false;
  }
  const int32_t num_pending = sequence.num_pending();
  int32_t count = num_pending;
  if (num_pending > 1) {
    const int32_t budget = options_.max_num_batched_tokens - batch.num_tokens - num_behind;
    const int32_t chunk_budget = std::max(options_.chunked_prefill_size - num_chunked_, 1);
    count = std::min({budget, chunk_budget, num_pending});
  }
  if (!sequence.HasSlots(begin + count)) count = AppendBlocks(sequence, count);
  if (num_pending > 1) num_chunked_ += count;
  num_running_tokens_ += num_pending - count;
  return count;
}

// Inline: a decode step runs it for every sequence (see commit.cc).
inline void Scheduler::AddChunk(Sequence& sequence, int32_t num_behind, Batch& batch) {
  const int32_t begin = sequence.num_computed_;
  const int32_t num_pending = sequence.num_pending();
  const bool has_room = num_pending == 1 && sequence.HasOwnSlot();
  const int32_t count = has_room ? 1 : MakeRoom(sequence, num_behind, batch);

  const int32_t end = begin + count;
  const bool samples = count == num_pending;
  const int32_t num_scored = sequence.num_prompt_ - 1;  // the prompt's last token has no successor in it
  const bool scores_prompt = begin < num_scored && sequence.max_computed_ < std::min(end, num_scored) &&
                             sequence.request().num_prompt_logprobs.has_value();
  const auto index = static_cast<int32_t>(batch.chunks.size());
  Chunk& chunk = batch.chunks.emplace_back();
  chunk.sequence = &sequence;
  chunk.begin = begin;
  chunk.count = count;
  chunk.source = sequence.last_chunk_;
  chunk.takes_drawn = sequence.num_in_flight_ > 0;
  chunk.samples = samples;
  chunk.scores_prompt = scores_prompt;
  chunk.brings_more = scores_prompt || (samples && (sequence.num_outputs_ > 1 || sequence.num_top_ > 0));
  chunk.num_draws = sequence.num_outputs_;
  batch.num_tokens += count;
  sequence.num_computed_ = end;
  sequence.num_in_flight_ += samples ? 1 : 0;
  ++sequence.num_launched_;
  sequence.last_chunk_ = index;
}

bool Scheduler::ScheduleRunning(Batch& batch) {
  num_running_tokens_ = 0;
  auto num_behind = static_cast<int32_t>(running_.size());  // `it` and those after it
  bool all_had_blocks = true;
  // Added up here, where the sequences pass by anyway, if AdmitWaiting is going to ask.
  num_reserved_ = 0;
  const auto reserve = [this, may_admit = MayAdmit()](const Sequence& sequence) {
    if (may_admit) num_reserved_ += sequence.NumBlocksSoon();
  };
  for (auto it = running_.begin(); it != running_.end(); ++it, --num_behind) {
    if (const auto next = std::next(it); next != running_.end()) next->Prefetch();
    if (it->AwaitsToken()) {
      reserve(*it);
      continue;
    }
    bool has_blocks = it->HasOwnSlot() || HasBlocks(NumBlocksNow(*it));
    for (; !has_blocks; has_blocks = HasBlocks(NumBlocksNow(*it))) {
      all_had_blocks = false;
      const bool is_last = std::next(it) == running_.end();
      // What a batch in flight keeps comes back with its commit; of the only one, what its windows have passed.
      if (num_leaving_ > 0 || (is_last && it == running_.begin() && num_in_flight_ > 0)) break;
      PreemptLast();
      --num_behind;
      if (is_last) return false;
    }
    // Nobody is admitted without a token of the budget for himself, and those behind keep theirs.
    if (has_blocks) AddChunk(*it, num_behind - 1, batch);
    reserve(*it);
  }
  return all_had_blocks;
}

bool Scheduler::HasBlocks(int64_t count) const {
  // Who is alone always gets them, or there would be no progress: a fault spares him.
  const bool fails = count > 0 && running_.size() > 1 && Reached(FailPoint::kBlockAllocation);
  return count <= pool_.num_available() && !fails;
}

int64_t Scheduler::NumReservedBlocks() const {
  int64_t reserved = 0;
  for (const Sequence& sequence : running_) reserved += sequence.NumBlocksSoon();
  return reserved;
}

Sequence* Scheduler::NextToAdmit(absl::Time now, std::vector<TokenEvent>& events) {
  while (!queue_.empty()) {
    Sequence& sequence = queue_.Front();
    const Request& request = sequence.request();
    const bool has_company = by_id_.size() > 1;
    if (sequence.started_ || !has_company || request.deadline == absl::InfiniteFuture()) return &sequence;
    const Candidate candidate = CandidateOf(request, NumCached(request), Workload());
    if (IsWorthStarting(load_, now, candidate, request.arrival)) return &sequence;
    End(request.id, Ending::kDeadlineUnreachable, events);
  }
  return nullptr;
}

void Scheduler::AdmitBeforeRunning(absl::Time now, std::vector<TokenEvent>& events) {
  while (!running_.empty() && !queue_.empty() && queue_.Front().rank() < running_.back().rank()) {
    Sequence* const sequence = NextToAdmit(now, events);
    if (sequence == nullptr || !(sequence->rank() < running_.back().rank())) return;
    if (sequence->num_launched_ > 0) return;
    const bool has_seats = HasSeats(*sequence);
    if (has_seats && TakePrefix(*sequence, NumReservedBlocks())) {
      Admit(*sequence, now, events);
    } else if (has_seats && num_leaving_ > 0) {
      return;  // more blocks come with a commit
    } else {
      PreemptLast();
    }
  }
}

void Scheduler::AdmitWaiting(absl::Time now, Batch& batch, std::vector<TokenEvent>& events) {
  const auto may_admit = [&] {
    return !queue_.empty() && num_seats_ < MaxSeats() && batch.num_tokens < options_.max_num_batched_tokens &&
           num_chunked_ < options_.chunked_prefill_size;
  };
  if (!MayAdmit() || !may_admit()) return;
  int64_t reserved = num_reserved_;
  while (may_admit()) {
    Sequence* const sequence = NextToAdmit(now, events);
    if (sequence == nullptr) return;
    if (sequence->num_launched_ > 0 || !HasSeats(*sequence) || !TakePrefix(*sequence, reserved)) {
      blocked_ = sequence;
      return;
    }
    Admit(*sequence, now, events);
    AddChunk(*sequence, /*num_behind=*/0, batch);
    reserved += sequence->NumBlocksSoon();
  }
}

void Scheduler::Admit(Sequence& sequence, absl::Time now, std::vector<TokenEvent>& events) {
  if (options_.policy == SchedulingPolicy::kFair && !sequence.started_) {
    shares_.Charge(sequence.account_, FairShare::kPromptCost * sequence.num_pending());
  }
  queue_.Remove(sequence);
  sequence.queued_ = false;
  if (!sequence.started_) Start(sequence, now, events);
  sequence.running_ = true;
  num_seats_ += NumSeats(sequence);
  ++num_admitted_;
  auto place = running_.end();
  if (options_.policy != SchedulingPolicy::kFair) {  // there the order is that of admission
    while (place != running_.begin() && sequence.rank() < std::prev(place)->rank()) --place;
  }
  running_.splice(place, waiting_, PlaceOf(sequence));
}

bool Scheduler::TakePrefix(Sequence& sequence, int64_t reserved) {
  if (options_.enable_prefix_caching && sequence.ReadsPrefixCache()) {
    // The last token always runs: the next one is drawn from its row.
    const int32_t max_blocks = (sequence.num_pending() - 1) / options_.block_size;
    const auto name = [&sequence](int32_t index) -> const BlockHash& { return sequence.HashOf(index); };
    sequence.blocks_.AppendHit(name, max_blocks);
  }
  // Alone it is admitted whatever it needs: Add has seen to it that it fits.
  const bool is_alone = running_.empty() && num_leaving_ == 0;
  if (!is_alone && !HasBlocks(reserved + sequence.NumBlocksSoon())) {
    sequence.blocks_.Clear();
    return false;
  }
  sequence.num_published_ = sequence.blocks_.size();
  sequence.num_computed_ = sequence.blocks_.size() * options_.block_size;
  return true;
}

void Scheduler::Start(Sequence& sequence, absl::Time now, std::vector<TokenEvent>& events) {
  sequence.started_ = true;
  timers_.OnStarted(sequence.request());
  sequence.Reserve();
  counters_.prompt_tokens += sequence.num_prompt();
  if (options_.enable_prefix_caching && sequence.ReadsPrefixCache()) {
    counters_.prefix_queries += sequence.num_prompt();
    counters_.prefix_hits += sequence.num_computed_;
  }
  AppendEvent(EventKind::kStarted, sequence, now, events).cached_tokens = sequence.num_computed_;
}

void Scheduler::StopRunning(SequenceList::iterator it) {
  if (it->num_launched_ > 0) {
    LeaveLater(*it);
  } else {
    ReleaseBlocks(*it);
  }
  it->running_ = false;
  it->may_share_next_ = false;
  num_seats_ -= NumSeats(*it);
  it->expected_tokens_ = it->len();
  waiting_.splice(waiting_.end(), running_, it);
  blocked_ = nullptr;
}

void Scheduler::PreemptLast() {
  Sequence& sequence = running_.back();
  StopRunning(std::prev(running_.end()));
  PushWaiting(sequence, /*is_new=*/false);
  ++counters_.preemptions;
}

void Scheduler::PushWaiting(Sequence& sequence, bool is_new) {
  sequence.queued_ = true;
  queue_.Push(sequence, is_new);
}

SchedulerStats Scheduler::stats() const {
  SchedulerStats stats = counters_;
  stats.num_running = static_cast<int32_t>(running_.size());
  stats.num_waiting = static_cast<int32_t>(waiting_.size());
  stats.blocks_free = pool_.num_free();
  stats.blocks_held = pool_.num_held();
  stats.blocks_cached = pool_.num_reclaimable();
  return stats;
}

}  // namespace quire
