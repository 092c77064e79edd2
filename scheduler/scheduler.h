// Scheduler: continuous batching over a paged cache.
//
// Schedule decides, a runner computes, Commit writes. Each step has one budget of tokens, shared by sequences that decode (one token each)
// and by chunks of prompts. Sequences that run are served first, in order of arrival, each at least one token; then waiting ones are admitted while the
// limit of sequences, the budget and the blocks allow. When a running sequence needs a block and none is available, the youngest running sequence is
// preempted: its blocks are released and it goes back to the head of the queue, to be computed again (recomputation). The oldest is never preempted for a
// younger one, and Add refuses what could not run even alone; so there is always progress (law 2).
//
// Owns sequences, the block pool and the tables. Knows nothing of devices, text or gRPC; time is an argument.
// Thread: the engine thread, except where said.

#ifndef QUIRE_SCHEDULER_SCHEDULER_H_
#define QUIRE_SCHEDULER_SCHEDULER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kvcache/block_pool.h"
#include "kvcache/kv_cache_spec.h"
#include "scheduler/batch.h"
#include "scheduler/request.h"
#include "scheduler/token_event.h"

namespace quire {

struct SchedulerOptions {
  int32_t block_size = 16;               // tokens
  int32_t num_blocks = 0;                // of the pool
  int32_t max_num_seqs = 128;            // sequences in one step
  int32_t max_num_batched_tokens = 2048; // token budget of one step
  int32_t max_model_len = 0;             // prompt + output, tokens
  bool enable_prefix_caching = true;
};

// Counters since start, each counted where it happens. Copied out by the engine after each step.
struct SchedulerStats {
  int32_t num_running = 0;
  int32_t num_waiting = 0;  // preempted ones among them
  int32_t blocks_free = 0, blocks_held = 0, blocks_cached = 0;
  uint64_t prompt_tokens = 0;         // of admitted requests
  uint64_t sampled_tokens = 0;        // "generation": appended to a sequence
  uint64_t recomputed_tokens = 0;     // positions run again after a preemption
  uint64_t preemptions = 0;
  uint64_t prefix_queries = 0;        // prompt tokens asked of the prefix cache
  uint64_t prefix_hits = 0;           // prompt tokens found there
  uint64_t steps = 0;
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);
  ~Scheduler();

  // Queues a request. INVALID_ARGUMENT when it could never run: prompt empty or prompt + max_tokens over max_model_len or over the pool.
  absl::Status Add(std::shared_ptr<const Request> request);

  // Ends a request now (client gone, Cancel, stop string found elsewhere) with one kEnded event of this ending, unless it is unknown (already over): then
  // nothing. Its blocks are released at once, or, if the batch in flight names it, when that batch is committed.
  void End(RequestId id, Ending ending, std::vector<TokenEvent>& events);

  // As End, without an event: somebody else has told the client already (a stop string).
  void Drop(RequestId id);

  // Ends all requests whose deadline is not after `now` (Ending::kExpired), waiting or running.
  void Expire(absl::Time now, std::vector<TokenEvent>& events);
  // The earliest deadline of all requests; InfiniteFuture if there is none.
  absl::Time NextDeadline() const;

  // Fills `batch` with the next step; empty exactly when no sequence is runnable. Appends kStarted events.
  // REQUIRES: the previous batch is committed.
  void Schedule(absl::Time now, Batch& batch, std::vector<TokenEvent>& events);

  // Takes in what the runner computed for `batch`: advances sequences, publishes full blocks, appends tokens, ends what is complete (one
  // kToken event each, its `finish` set on the last). A row that is not finite ends its request with kFailed and its blocks leave the prefix index.
  void Commit(absl::Time now, const Batch& batch, const StepResult& result, std::vector<TokenEvent>& events);

  // Ends every request (device error, shutdown).
  void EndAll(Ending ending, std::vector<TokenEvent>& events);

  bool idle() const;  // no sequence waits or runs
  const SchedulerOptions& options() const;
  SchedulerStats stats() const;
};

}  // namespace quire

#endif  // QUIRE_SCHEDULER_SCHEDULER_H_
