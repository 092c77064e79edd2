// Scheduler: continuous batching over a paged cache.
//
// Schedule decides, a runner computes, Commit writes. Each step has one budget of tokens, shared by sequences that
// decode (one token each) and by chunks of prompts, which have a limit of their own inside it. Sequences that run are
// served first, in order of arrival, each at least one token; then waiting ones are admitted while the limit of
// sequences, the budget and the blocks allow. When a running sequence needs a block and none is available, the youngest
// running sequence is preempted: its blocks are released and it goes back to the head of the queue, to be computed
// again (recomputation). The oldest is never preempted for a younger one, and Add refuses what could not run even
// alone; so there is always progress (law 2).
//
// First come, first served makes one list enough: in order of arrival, the running sequences are a prefix of it and the
// waiting ones the rest. Admission moves the border one sequence down, preemption one up.
//
// Owns sequences, the block pool and the tables. Knows nothing of devices, text or gRPC; time is an argument.
// Thread: the engine thread.

#ifndef QUIRE_SCHEDULER_SCHEDULER_H_
#define QUIRE_SCHEDULER_SCHEDULER_H_

#include <cstdint>
#include <limits>
#include <list>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kvcache/block_pool.h"
#include "kvcache/kv_table_layout.h"
#include "scheduler/batch.h"
#include "scheduler/request.h"
#include "scheduler/sequence.h"
#include "scheduler/token_event.h"

namespace quire {

struct SchedulerOptions {
  int32_t block_size = 16;                // tokens
  int32_t num_blocks = 0;                 // of the pool
  int32_t max_num_seqs = 128;             // sequences that run at once
  int32_t max_num_batched_tokens = 2048;  // token budget of one step
  // Tokens of a step that belong to sequences with more than one pending. Where a device is busy with fewer than the
  // whole budget, more only makes everybody wait for the end of the step.
  int32_t chunked_prefill_size = std::numeric_limits<int32_t>::max();
  int32_t max_model_len = 0;  // prompt + output, tokens
  bool enable_prefix_caching = true;
  // Of each group of layers: how many tokens a row sees, itself included; 0: all (KvCacheSpec::Windows).
  std::vector<int32_t> kv_windows = {0};
};

// Gauges of this moment, then counters since start, each counted where it happens.
struct SchedulerStats {
  int32_t num_running = 0;
  int32_t num_waiting = 0;  // preempted ones among them
  int32_t blocks_free = 0, blocks_held = 0, blocks_cached = 0;
  uint64_t prompt_tokens = 0;   // of admitted requests
  uint64_t sampled_tokens = 0;  // "generation": appended to a sequence
  // Drawn for a sequence that ended while its step was in flight; not among sampled_tokens.
  uint64_t discarded_tokens = 0;
  uint64_t recomputed_tokens = 0;  // positions run again after a preemption
  uint64_t preemptions = 0;
  uint64_t pauses = 0;
  uint64_t prefix_queries = 0;  // prompt tokens asked of the prefix cache, once for each request
  uint64_t prefix_hits = 0;     // prompt tokens found there: the sum of all cached_tokens
  uint64_t steps = 0;           // batches committed
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

  // Ends a request now (client gone, Cancel) with one kEnded event of this ending, unless it is unknown (already over):
  // then nothing. Its blocks are released at once, or, if the batch in flight names it, when that batch is committed.
  void End(RequestId id, Ending ending, std::vector<TokenEvent>& events);

  // As End, without an event: somebody else has told the client already (a stop string).
  void Drop(RequestId id);

  // A request whose client does not read is not runnable until Resume: from the next step on it holds no blocks, and
  // when it goes on it finds in the prefix cache what nobody else needed meanwhile. It must have a deadline elsewhere
  // (the server's write time-out). Unknown requests are ignored, and so is what is the case already.
  void Pause(RequestId id);
  void Resume(RequestId id);

  // Ends all requests whose deadline is not after `now` (Ending::kExpired), waiting or running.
  void Expire(absl::Time now, std::vector<TokenEvent>& events);
  // The earliest deadline of all requests; InfiniteFuture if there is none.
  absl::Time NextDeadline() const;

  // Fills `batch` with the next step; empty exactly when no sequence is runnable. Appends kStarted events.
  // REQUIRES: the previous batch is committed (Check).
  void Schedule(absl::Time now, Batch& batch, std::vector<TokenEvent>& events);

  // Takes in what the runner computed for `batch`: advances sequences, publishes full blocks, appends tokens, ends what
  // is complete (one kToken event each, its `finish` set on the last). A row that is not finite ends its request with
  // kFailed and its blocks leave the prefix index. REQUIRES: `batch` is what Schedule filled last (Check).
  void Commit(absl::Time now, const Batch& batch, const StepResult& result, std::vector<TokenEvent>& events);

  // Ends every request (device error, shutdown), in order of arrival.
  void EndAll(Ending ending, std::vector<TokenEvent>& events);

  bool idle() const { return sequences_.empty(); }  // no sequence waits or runs
  const SchedulerOptions& options() const { return options_; }
  SchedulerStats stats() const;

 private:
  using SequenceList = std::list<Sequence>;

  // What a StepResult says of one chunk, and who takes it apart so.
  struct ChunkResult;
  class ResultReader;

  // Running sequences that were paused give up their blocks and wait, in order, before all others.
  void ParkPaused();
  // Gives each running sequence a chunk, preempting from the back where blocks lack. False when it preempted.
  bool ScheduleRunning(Batch& batch);
  // Makes waiting sequences run, in order but for paused ones, while seats, budget and blocks allow.
  void AdmitWaiting(absl::Time now, Batch& batch, std::vector<TokenEvent>& events);
  // The sequence is about to run for the first time.
  void Start(Sequence& sequence, absl::Time now, std::vector<TokenEvent>& events);
  // Takes what the cache has of a waiting sequence's prefix. False, and takes nothing, if then the blocks that it needs
  // soon would not be available beside `reserved` others.
  bool TakePrefix(Sequence& sequence, int64_t reserved);
  void PreemptYoungest();
  // Tokens that one more chunk of the batch may have; above zero while a sequence may be admitted.
  int32_t MaxCount(const Batch& batch) const;
  // Appends a chunk of the pending tokens, as many as may be, or fewer if blocks lack. REQUIRES: a block is available
  // for the first.
  void AddChunk(Sequence& sequence, Batch& batch);
  // Gives the sequence blocks for `count` more positions, or for as many as there are blocks: returns that count.
  int32_t AppendBlocks(Sequence& sequence, int32_t count);

  // Takes in one chunk of a sequence that is alive.
  void CommitChunk(absl::Time now, const ChunkResult& result, Sequence& sequence, std::vector<TokenEvent>& events);
  // Publishes the full blocks before index `end` that are not published yet.
  void PublishBlocks(Sequence& sequence, int32_t end);
  // Publishes what it has computed and gives its blocks back; it is to run again from the beginning.
  void ReleaseBlocks(Sequence& sequence);
  void EmitPromptLogprobs(absl::Time now, const ChunkResult& result, const Sequence& sequence,
                          std::vector<TokenEvent>& events);
  // Ends a sequence whose logits were not finite.
  void Fail(absl::Time now, Sequence& sequence, std::vector<TokenEvent>& events);

  // Takes out a sequence that is over; it lives on in `ended_` while the batch in flight names it.
  void Remove(Sequence& sequence);

  SchedulerOptions options_;
  KvTableLayout layout_;
  bool has_windows_;
  BlockPool pool_;  // before the sequences: their tables refer to both

  SequenceList sequences_;                // in order of arrival: running ones, then waiting ones
  SequenceList::iterator first_waiting_;  // end() if none waits
  int32_t num_running_ = 0;               // sequences before first_waiting_
  SequenceList ended_;                    // over, but named by the batch in flight
  std::vector<Sequence*> in_flight_;      // of each chunk of the batch in flight
  int32_t num_chunked_ = 0;               // tokens of its sequences with more than one pending
  absl::flat_hash_map<RequestId, SequenceList::iterator> by_id_;
  absl::btree_set<std::pair<absl::Time, RequestId>> deadlines_;  // the finite ones
  bool must_park_ = false;                                       // a sequence was paused that may be running
  // The first waiting sequence did not fit, and since then no sequence has left: it need not be tried again.
  bool head_is_blocked_ = false;
  SchedulerStats counters_;  // gauges unset
};

}  // namespace quire

#endif  // QUIRE_SCHEDULER_SCHEDULER_H_
