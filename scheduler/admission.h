// Admission: whether a request that comes now may wait, judged by the true state of the scheduler: what is free after
// prefix hits, what waits ahead of it, and how fast that goes.
//
// It is refused
//   - when more prompt tokens would wait than are allowed, in all or of its tenant, or more requests of its tenant;
//   - when its prompt alone, behind those ahead of it, would not be computed by its deadline (deadline unreachable);
//   - when it would be done in time on its own, but not behind the queue: it would cost what others can use.
// What can start at once is never refused, unless its own prompt takes too long.
//
// Thread: none of its own; functions of their arguments.

#ifndef QUIRE_SCHEDULER_ADMISSION_H_
#define QUIRE_SCHEDULER_ADMISSION_H_

#include <cstdint>
#include <limits>
#include <optional>

#include "absl/time/time.h"
#include "scheduler/load_estimate.h"
#include "scheduler/token_event.h"
#include "scheduler/waiting_queue.h"

namespace quire {

// Beyond these a request is refused. Tokens of prompts are counted less what the prefix cache has of them.
struct AdmissionLimits {
  int64_t max_waiting_tokens = 4194304;
  int32_t max_waiting_requests_per_tenant = std::numeric_limits<int32_t>::max();
  int64_t max_waiting_tokens_per_tenant = std::numeric_limits<int64_t>::max();
};

// A request at the door.
struct Candidate {
  int32_t num_tokens = 0;  // of its prompt, less prefix hits
  uint32_t max_tokens = 0;
  absl::Time deadline = absl::InfiniteFuture();
  bool can_start = false;          // nobody is ahead of it, and a seat and its blocks are free
  Workload ahead;                  // of those that wait
  int64_t num_running_tokens = 0;  // of prompts that are being computed
  Workload all;                    // that waits
  Workload of_tenant;
};

struct Refusal {
  Ending ending = Ending::kRefused;  // or kDeadlineUnreachable
  absl::Duration retry_delay;        // with kRefused: the estimate until it would be taken
};

std::optional<Refusal> Judge(const AdmissionLimits& limits, const LoadEstimate& load, absl::Time now,
                             const Candidate& candidate);

// Whether a request whose turn has come would still be done in time. REQUIRES: it waited, and others run or wait; else
// there is nothing to gain by not running it.
bool IsWorthStarting(const LoadEstimate& load, absl::Time now, const Candidate& candidate, absl::Time arrival);

// What clients are told: at least 10 ms, at most 60 s.
absl::Duration RetryDelay(absl::Duration estimate);

}  // namespace quire

#endif  // QUIRE_SCHEDULER_ADMISSION_H_
