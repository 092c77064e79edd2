// Who is served first.
//
//   fcfs      in order of arrival.
//   priority  lower numbers first, and a lower rank gives its seat and blocks to a higher one. The rest age: a request
//             counts as one priority better for each `priority_aging` that it has lived. As all age at the same rate,
//             the order of two requests never changes, and the rank is a constant: arrival + priority * priority_aging.
//   fair      the tenant that has been served least, by weight (fair_share.h); within a tenant, in order of arrival.

#ifndef QUIRE_SCHEDULER_POLICY_H_
#define QUIRE_SCHEDULER_POLICY_H_

#include <cstdint>

#include "absl/time/time.h"

namespace quire {

enum class SchedulingPolicy : uint8_t { kFcfs, kPriority, kFair };

// A sequence's place in the order of its policy (with kFair: among those of its tenant); smaller is served first. A
// strict total order: no two requests have the same number, and no two outputs of one the same index.
struct Rank {
  absl::Time turn;      // kPriority: the arrival that a request of priority 0 with this rank has; else the same for all
  uint64_t number = 0;  // counts requests as they come
  uint32_t index = 0;   // of the output

  friend bool operator<(const Rank& a, const Rank& b) {
    if (a.turn != b.turn) return a.turn < b.turn;
    return a.number != b.number ? a.number < b.number : a.index < b.index;
  }
};

}  // namespace quire

#endif  // QUIRE_SCHEDULER_POLICY_H_
