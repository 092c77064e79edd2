// Scheduler: continuous batching over a paged cache.
//
// Schedule decides, a runner computes, Commit writes. Each step has one budget of tokens, shared by sequences that
// decode (one token each) and by chunks of prompts, which have a limit of their own inside it. Sequences that run are
// served first, in the policy's order, each at least one token; then waiting ones are admitted while the limit of
// sequences, the budget and the blocks allow. When a running sequence needs a block and none is available, the running
// sequence that is last in the order is preempted: its blocks are released and it waits again, to be computed anew
// (recomputation). The first is never preempted for a later one, and Add refuses what could not run even alone; so
// there is always progress (law 2).
//
// The order (policy.h) is that of arrival, or of priority: then the first that waits also preempts running ones behind
// it for a seat or blocks. With the fair policy those that run are in the order in which they were admitted, and the
// tenants take turns at being admitted.
//
// A request of n outputs runs its prompt once, as one sequence that holds a seat for each. When the prompt is complete,
// n tokens are drawn from its last row and n sequences go on, which share the prompt's blocks; the last of them, if it
// is not full, is copied before it is written (outputs.cc).
//
// Run-ahead: with SchedulerOptions::run_ahead the next batch is scheduled while the one before it still runs. A
// sequence is then scheduled up to its tokens and the one in flight (sequence.h says when not); the token is fed on the
// device. Its blocks stay its own until the last batch that names it is committed, whether it was cancelled, is
// complete, or was preempted or paused; who needs such blocks waits for that commit and preempts nobody else meanwhile.
//
// Owns sequences, the block pool and the tables. Knows nothing of devices, text or gRPC; time is an argument.
// Thread: the engine thread.

#ifndef QUIRE_SCHEDULER_SCHEDULER_H_
#define QUIRE_SCHEDULER_SCHEDULER_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kvcache/block_pool.h"
#include "kvcache/kv_event_log.h"
#include "kvcache/kv_table_layout.h"
#include "scheduler/admission.h"
#include "scheduler/batch.h"
#include "scheduler/fair_share.h"
#include "scheduler/load_estimate.h"
#include "scheduler/policy.h"
#include "scheduler/request.h"
#include "scheduler/sequence.h"
#include "scheduler/step_reader.h"
#include "scheduler/timers.h"
#include "scheduler/token_event.h"
#include "scheduler/waiting_queue.h"

namespace quire {

struct SchedulerOptions {
  int32_t block_size = 16;                // tokens
  int32_t num_blocks = 0;                 // of the pool
  int32_t max_num_seqs = 128;             // sequences that run at once
  int32_t max_num_batched_tokens = 2048;  // token budget of one step
  // Batches that may be in flight when the next is scheduled: 0, or 1 where the runner's device works by itself.
  int32_t run_ahead = 0;
  // Tokens of a step that belong to sequences with more than one pending. Where a device is busy with fewer than the
  // whole budget, more only makes everybody wait for the end of the step.
  int32_t chunked_prefill_size = std::numeric_limits<int32_t>::max();
  int32_t max_model_len = 0;  // prompt + output, tokens
  bool enable_prefix_caching = true;
  // Of each group of layers: how many tokens a row sees, itself included; 0: all (KvCacheSpec::Windows).
  std::vector<int32_t> kv_windows = {0};
  SchedulingPolicy policy = SchedulingPolicy::kFcfs;
  absl::Duration priority_aging = absl::Seconds(10);  // kPriority: see policy.h
  std::map<std::string, double> tenant_weights = {};  // kFair: of tenants whose weight is not 1
  int32_t max_tenants = 1024;                         // kFair: with accounts of their own
  AdmissionLimits limits = {};
  // Is told of the blocks without a salt that enter and leave the prefix cache; outlives the scheduler. nullptr: nobody
  // wants to know.
  KvEventLog* kv_events = nullptr;
};

// Gauges of this moment, then counters since start, each counted where it happens.
struct SchedulerStats {
  int32_t num_running = 0;
  int32_t num_waiting = 0;  // preempted ones among them
  int32_t blocks_free = 0, blocks_held = 0, blocks_cached = 0;
  uint64_t prompt_tokens = 0;    // of admitted requests
  uint64_t computed_tokens = 0;  // drawn, and positions run again after a preemption
  uint64_t sampled_tokens = 0;   // "generation": appended to a sequence
  // Drawn for a sequence that ended while its step was in flight; not among sampled_tokens.
  uint64_t discarded_tokens = 0;
  uint64_t recomputed_tokens = 0;  // positions run again after a preemption
  uint64_t preemptions = 0;
  uint64_t pauses = 0;
  uint64_t prefix_queries = 0;  // prompt tokens asked of the prefix cache, once for each request
  uint64_t prefix_hits = 0;     // prompt tokens found there: the sum of all cached_tokens
  uint64_t steps = 0;           // batches committed
  uint64_t corrupted = 0;       // requests that ended because logits were not finite
};

class Scheduler {
 public:
  // REQUIRES: block_size, max_num_seqs and max_num_batched_tokens >= 1 (Check).
  explicit Scheduler(const SchedulerOptions& options);
  ~Scheduler();

  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Queues a request. INVALID_ARGUMENT when it could never run: prompt empty, max_tokens 0, or prompt + max_tokens over
  // max_model_len or over the pool. REQUIRES: its id is new (Check).
  absl::Status Add(std::shared_ptr<const Request> request);

  // As Add, for a request that comes at `now` and that others must leave room for: it is refused with a kEnded event
  // (kRefused, kDeadlineUnreachable; kFailed if it could never run) when Judge says so (admission.h).
  void Submit(std::shared_ptr<const Request> request, absl::Time now, std::vector<TokenEvent>& events);

  // Ends a request now (client gone, Cancel) with one kEnded event of this ending, unless it is unknown (already over):
  // then nothing. Its blocks are released at once, or, if batches in flight name it, when the last is committed.
  void End(RequestId id, Ending ending, std::vector<TokenEvent>& events);

  // Ends one output of a request without an event: somebody else has told the client already (a stop string). Unknown
  // ones are ignored.
  void Drop(RequestId id, uint32_t index);

  // A request whose client does not read is not runnable until Resume: from the next step on it holds no blocks, and
  // when it goes on it finds in the prefix cache what nobody else needed meanwhile. It must have a deadline elsewhere
  // (the server's write time-out). Unknown requests are ignored, and so is what is the case already.
  void Pause(RequestId id);
  void Resume(RequestId id);

  // Ends all requests of which a deadline or limit is not after `now`, waiting or running.
  void Expire(absl::Time now, std::vector<TokenEvent>& events);
  // The earliest of them all; InfiniteFuture if there is none.
  absl::Time NextDeadline() const { return timers_.Next(); }

  // Fills `batch` with the next step. Empty when no sequence is runnable, or those that are need what a batch in flight
  // brings; an empty one is not in flight. Appends kStarted events, and kEnded events of those whose turn has come too
  // late for their deadline (kDeadlineUnreachable). REQUIRES: at most run_ahead batches are not committed (Check).
  void Schedule(absl::Time now, Batch& batch, std::vector<TokenEvent>& events);

  // Takes in what the runner computed for `batch`: advances sequences, publishes full blocks, appends tokens, ends what
  // is complete (one kToken event each, its `finish` set on the last). A row that is not finite ends its request with
  // kFailed and its blocks leave the prefix index. REQUIRES: `batch` is the oldest in flight, or empty (Check).
  void Commit(absl::Time now, const Batch& batch, const StepResult& result, std::vector<TokenEvent>& events);

  // Ends every request (device error, shutdown), in order of arrival.
  void EndAll(Ending ending, std::vector<TokenEvent>& events);

  bool idle() const { return by_id_.empty(); }  // no sequence waits or runs
  // The estimate until one more waiting request is admitted: what a client in front of a full queue is told.
  absl::Duration RetryDelay(absl::Time now) const { return quire::RetryDelay(load_.QueueTime(now, 1)); }
  const SchedulerOptions& options() const { return options_; }
  SchedulerStats stats() const;

 private:
  using SequenceList = std::list<Sequence>;
  // Of one request: its sequences that are not over, by index.
  using Outputs = absl::InlinedVector<SequenceList::iterator, 1>;

  static TokenEvent& AppendEvent(EventKind kind, const Sequence& sequence, absl::Time time,
                                 std::vector<TokenEvent>& events) {
    return events.emplace_back(kind, sequence.id(), sequence.index(), time);
  }

  // Hands over for scrubbing what failed sequences held and nobody else does.
  void ScrubSuspects(Batch& batch);

  // INVALID_ARGUMENT when a request could never run.
  absl::Status CheckSize(const Request& request) const;
  // How the request stands at the door now. Its prefix hits are in `num_cached`, tokens.
  Candidate CandidateOf(const Request& request, int32_t num_cached, const Workload& ahead) const;
  Rank NextRank(const Request& request) const;
  // The tokens of the prompt that the cache has now, of the first group that keeps all blocks.
  int32_t NumCached(const Request& request) const;
  void Enqueue(std::shared_ptr<const Request> request, int32_t num_cached);

  // Running sequences that were paused give up their seats and blocks.
  void ParkPaused();
  // Gives each running sequence a chunk, preempting from the back where blocks lack. False when they did.
  bool ScheduleRunning(Batch& batch);
  // The waiting sequence whose turn it is; nullptr if none is or can be. Ends those that would be too late.
  Sequence* NextToAdmit(absl::Time now, std::vector<TokenEvent>& events);
  // kPriority: admits those that go before running ones, which are preempted for a seat or for blocks.
  void AdmitBeforeRunning(absl::Time now, std::vector<TokenEvent>& events);
  // Somebody waits for whom there may be a seat and blocks.
  bool MayAdmit() const { return !queue_.empty() && num_seats_ < MaxSeats() && blocked_ != &queue_.Front(); }
  // Makes waiting sequences run, in order, while seats, budget and blocks allow. REQUIRES: ScheduleRunning was true.
  void AdmitWaiting(absl::Time now, Batch& batch, std::vector<TokenEvent>& events);
  // Sequences that can run at once.
  int32_t MaxSeats() const { return std::min(options_.max_num_seqs, options_.max_num_batched_tokens); }
  // Seats that a sequence takes: more outputs than there are seats run one after another.
  int32_t NumSeats(const Sequence& sequence) const { return std::min(sequence.num_outputs(), MaxSeats()); }
  bool HasSeats(const Sequence& sequence) const { return num_seats_ + NumSeats(sequence) <= MaxSeats(); }
  // Blocks that a running sequence must get before it can run its next position.
  int32_t NumBlocksNow(const Sequence& sequence) const {
    return sequence.HasSlots(sequence.num_computed() + 1) ? sequence.NumSharedBlocks() : layout_.num_groups();
  }
  // Whether the pool has `count` blocks for a sequence that runs, or is about to run, beside others.
  bool HasBlocks(int64_t count) const;
  // Makes a waiting sequence one that runs. REQUIRES: HasSeats, TakePrefix.
  void Admit(Sequence& sequence, absl::Time now, std::vector<TokenEvent>& events);
  // Blocks that running sequences need soon: who is admitted must not get preempted for them at once.
  int64_t NumReservedBlocks() const;
  // The sequence is about to run for the first time.
  void Start(Sequence& sequence, absl::Time now, std::vector<TokenEvent>& events);
  // Takes what the cache has of a waiting sequence's prefix. False, and takes nothing, if then the blocks that it needs
  // soon would not be available beside `reserved` others.
  bool TakePrefix(Sequence& sequence, int64_t reserved);
  // A running sequence runs no more, and begins anew if it runs again: what it holds goes back, if need be later.
  void StopRunning(SequenceList::iterator it);
  // The last of the running ones waits again.
  void PreemptLast();
  void PushWaiting(Sequence& sequence, bool is_new);
  // Appends a chunk of the pending tokens, as many as may be beside one for each of the `num_behind` running sequences
  // that are still to come, or fewer if blocks lack. REQUIRES: a block is available for the first.
  void AddChunk(Sequence& sequence, int32_t num_behind, Batch& batch);
  // How many those are; the sequence has slots of its own for them from then on.
  int32_t MakeRoom(Sequence& sequence, int32_t num_behind, Batch& batch);
  // Gives the sequence blocks for `count` more positions, or for as many as there are blocks: returns that count.
  int32_t AppendBlocks(Sequence& sequence, int32_t count);

  // Takes in one chunk of a sequence that is alive.
  void CommitChunk(absl::Time now, ChunkResult result, Sequence& sequence, std::vector<TokenEvent>& events);
  // Takes in one of a sequence that ended meanwhile.
  void DiscardChunk(ChunkResult result, Sequence& sequence);
  // Takes in a token drawn for an output. Returns its event, valid until the next one.
  TokenEvent& CommitToken(absl::Time now, const SampledToken& sampled, Sequence& sequence,
                          std::vector<TokenEvent>& events);
  // The output of which this was the last token is complete.
  void EndOutput(Sequence& sequence);
  // The same for each output of a sequence that stood for several: they become sequences of their own.
  void CommitFork(absl::Time now, ChunkResult result, Sequence& sequence, std::vector<TokenEvent>& events);
  // The sequence of one more output, which has run as far as `first` and shares its blocks, or waits if there is no
  // seat.
  Sequence& Fork(Sequence& first, uint32_t index);
  // Where the sequence stands in its list.
  SequenceList::iterator PlaceOf(const Sequence& sequence);
  // Publishes the full blocks before index `end` that are not published yet.
  void PublishBlocks(Sequence& sequence, int32_t end);
  // Tells options_.kv_events of those from `begin` on. REQUIRES: there is one.
  void TellStored(Sequence& sequence, int32_t begin, int32_t end);
  // Publishes what it has computed, unless it failed, and gives its blocks back; if it runs again, from the beginning.
  // REQUIRES: no batch in flight names it.
  void ReleaseBlocks(Sequence& sequence);
  // Batches in flight name it: its blocks go back with the commit of the last.
  void LeaveLater(Sequence& sequence);
  void EmitPromptLogprobs(absl::Time now, ChunkResult result, const Sequence& sequence,
                          std::vector<TokenEvent>& events);
  // Ends a request of which logits were not finite.
  void Fail(absl::Time now, Sequence& sequence, std::vector<TokenEvent>& events);

  // What the sequence holds leaves the prefix index, and will be scrubbed.
  void Distrust(Sequence& sequence);

  // Takes out all sequences of a request.
  void RemoveAll(RequestId id);
  // Of those that are over, the ones that no batch in flight names are no more.
  void EraseEnded();
  // Takes out a sequence that is over; it lives on in `ended_` while a batch in flight names it.
  void Remove(Sequence& sequence);

  SchedulerOptions options_;
  KvTableLayout layout_;
  bool has_windows_;
  // The first group of layers that keeps all blocks, else the first: what is cached of a prefix is told by it.
  int32_t prefix_group_;
  const BlockHash unsalted_ = RootHash("");
  BlockPool pool_;  // before the sequences: their tables refer to both

  SequenceList running_;     // in the order in which they are served
  SequenceList waiting_;     // all others, in no order: queue_ has it
  SequenceList ended_;       // over, but named by a batch in flight
  int32_t num_leaving_ = 0;  // sequences of which a batch in flight keeps the blocks
  static constexpr int32_t kMaxRunAhead = 1;
  int32_t num_in_flight_ = 0;                                // batches that are not committed
  uint64_t num_batches_ = 0;                                 // scheduled
  std::array<absl::Time, kMaxRunAhead + 1> scheduled_at_{};  // of those in flight, the oldest first
  absl::Time committed_at_ = absl::InfinitePast();           // the last
  absl::flat_hash_map<RequestId, Outputs> by_id_;
  int32_t num_seats_ = 0;  // taken by running sequences: one for each output that they stand for
  FairShare shares_;
  WaitingQueue queue_;
  Timers timers_;
  LoadEstimate load_;
  uint64_t num_enqueued_ = 0;
  // Of the last batch.
  int32_t num_admitted_ = 0;
  int32_t num_chunked_ = 0;   // tokens of its sequences with more than one pending
  int64_t num_reserved_ = 0;  // NumReservedBlocks before others were admitted, if they may have been
  // Positions of prompts that running sequences had yet to run after the last batch.
  int64_t num_running_tokens_ = 0;
  std::vector<BlockId> suspects_;  // blocks that failed sequences held
  bool must_park_ = false;         // a running sequence was paused
  // This sequence is first in the queue and did not fit, and since then no sequence has left: it need not be tried
  // again.
  const Sequence* blocked_ = nullptr;
  SchedulerStats counters_;  // gauges unset
};

}  // namespace quire

#endif  // QUIRE_SCHEDULER_SCHEDULER_H_
