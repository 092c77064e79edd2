// WaitingQueue: the sequences that wait, those that were preempted among them, in the policy's order; and how much work
// they are.
//
// Thread: the engine thread. Owned by the Scheduler, which owns the sequences too.

#ifndef QUIRE_SCHEDULER_WAITING_QUEUE_H_
#define QUIRE_SCHEDULER_WAITING_QUEUE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "scheduler/fair_share.h"
#include "scheduler/policy.h"
#include "scheduler/sequence.h"

namespace quire {

// Sequences, and the tokens that are expected to run before each has its next token.
struct Workload {
  int64_t num_sequences = 0;
  int64_t num_tokens = 0;
};

class WaitingQueue {
 public:
  // `shares` is used with kFair only; it outlives the queue.
  WaitingQueue(SchedulingPolicy policy, FairShare& shares) : policy_(policy), shares_(shares) {}

  // `sequence` waits from now on: it came (`is_new`), or was preempted.
  void Push(Sequence& sequence, bool is_new);
  void Remove(Sequence& sequence);

  // The next to be admitted. REQUIRES: !empty().
  Sequence& Front() const;

  bool empty() const { return load_.num_sequences == 0; }
  const Workload& load() const { return load_; }

  // What waits of this tenant.
  Workload OfTenant(absl::string_view tenant) const;
  // What would be served before a new request of this rank. kFair: of this account; none: of a new tenant.
  Workload Ahead(const Rank& rank, std::optional<AccountId> account) const;

 private:
  // The sequences of one account, or all if the policy is not kFair.
  struct Lane {
    absl::btree_set<std::pair<Rank, Sequence*>> sequences;
    Workload load;
  };

  Lane& LaneOf(const Sequence& sequence);
  // Adds a sequence to all sums, or takes it out.
  void Count(const Sequence& sequence, int sign);

  const SchedulingPolicy policy_;
  FairShare& shares_;
  std::vector<Lane> lanes_;                                    // by account
  Workload load_;                                              // of all
  absl::flat_hash_map<std::string, Workload> load_of_tenant_;  // of those that have any
};

}  // namespace quire

#endif  // QUIRE_SCHEDULER_WAITING_QUEUE_H_
