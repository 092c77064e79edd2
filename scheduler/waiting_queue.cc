#include "scheduler/waiting_queue.h"

#include <algorithm>
#include <cmath>

#include "kernels/check.h"

namespace quire {

WaitingQueue::Lane& WaitingQueue::LaneOf(const Sequence& sequence) {
  const size_t index = policy_ == SchedulingPolicy::kFair ? sequence.account() : 0;
  if (index >= lanes_.size()) lanes_.resize(index + 1);
  return lanes_[index];
}

void WaitingQueue::Count(const Sequence& sequence, int sign) {
  const auto of_tenant = load_of_tenant_.try_emplace(sequence.request().tenant).first;
  for (Workload* load : {&load_, &LaneOf(sequence).load, &of_tenant->second}) {
    load->num_sequences += sign;
    load->num_tokens += sign * sequence.expected_tokens();
  }
  if (of_tenant->second.num_sequences == 0) load_of_tenant_.erase(of_tenant);
}

Workload WaitingQueue::OfTenant(absl::string_view tenant) const {
  const auto found = load_of_tenant_.find(tenant);
  return found == load_of_tenant_.end() ? Workload() : found->second;
}

void WaitingQueue::Push(Sequence& sequence, bool is_new) {
  Check(LaneOf(sequence).sequences.emplace(sequence.rank(), &sequence).second, "a sequence waits twice");
  Count(sequence, 1);
  if (policy_ == SchedulingPolicy::kFair) shares_.BeginWaiting(sequence.account(), is_new);
}

void WaitingQueue::Remove(Sequence& sequence) {
  Check(LaneOf(sequence).sequences.erase({sequence.rank(), &sequence}) == 1, "a sequence leaves that does not wait");
  Count(sequence, -1);
  if (policy_ == SchedulingPolicy::kFair) shares_.EndWaiting(sequence.account());
}

Sequence& WaitingQueue::Front() const {
  Check(!empty(), "the queue is empty");
  const size_t lane = policy_ == SchedulingPolicy::kFair ? *shares_.Next() : 0;
  return *lanes_[lane].sequences.begin()->second;
}

Workload WaitingQueue::Ahead(const Rank& rank, std::optional<AccountId> account) const {
  switch (policy_) {
    case SchedulingPolicy::kFcfs:
      return load_;
    case SchedulingPolicy::kPriority: {
      Workload ahead;
      if (lanes_.empty()) return ahead;
      for (const auto& [other, sequence] : lanes_[0].sequences) {
        if (rank < other) break;
        ++ahead.num_sequences;
        ahead.num_tokens += sequence->expected_tokens();
      }
      return ahead;
    }
    case SchedulingPolicy::kFair: {
      // Until the account's own queue is served, each other one gets as much by weight, or all that it has.
      Workload ahead;
      if (!account || static_cast<size_t>(*account) >= lanes_.size()) return ahead;
      const Workload& own = lanes_[*account].load;
      for (size_t i = 0; i < lanes_.size(); ++i) {
        const double ratio = shares_.weight(static_cast<AccountId>(i)) / shares_.weight(*account);
        const auto part = [&](int64_t theirs, int64_t ours) {
          return std::min(theirs, static_cast<int64_t>(std::ceil(static_cast<double>(ours) * ratio)));
        };
        ahead.num_sequences += part(lanes_[i].load.num_sequences, own.num_sequences);
        ahead.num_tokens += part(lanes_[i].load.num_tokens, own.num_tokens);
      }
      return ahead;
    }
  }
  return load_;
}

}  // namespace quire
