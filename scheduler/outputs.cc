// Scheduler: how the outputs of one request become sequences.

#include <utility>

#include "absl/container/inlined_vector.h"
#include "kernels/check.h"
#include "scheduler/scheduler.h"

namespace quire {

Scheduler::SequenceList::iterator Scheduler::PlaceOf(const Sequence& sequence) {
  for (const SequenceList::iterator it : by_id_.find(sequence.request().id)->second) {
    if (&*it == &sequence) return it;
  }
  Check(false, "a sequence of an unknown request");
  return {};
}

void Scheduler::CommitFork(absl::Time now, const ChunkResult& result, Sequence& sequence,
                           std::vector<TokenEvent>& events) {
  // All share the blocks before the first can be over and give them back. If it was preempted meanwhile, it holds
  // neither seats nor blocks, and all wait.
  if (sequence.running_) num_seats_ -= NumSeats(sequence) - 1;
  sequence.num_outputs_ = 1;
  sequence.may_share_next_ = sequence.running_;
  absl::InlinedVector<Sequence*, 16> outputs = {&sequence};
  for (size_t i = 1; i <= result.more.size(); ++i) outputs.push_back(&Fork(sequence, static_cast<uint32_t>(i)));

  const size_t num_top = result.top.size() / outputs.size();
  for (size_t i = 0; i < outputs.size(); ++i) {
    const SampledToken& sampled = i == 0 ? *result.sampled : result.more[i - 1];
    CommitToken(now, sampled, result.top.subspan(i * num_top, num_top), *outputs[i], events);
  }
}

Sequence& Scheduler::Fork(Sequence& first, uint32_t index) {
  const bool runs = first.running_ && num_seats_ < MaxSeats();
  SequenceList& list = runs ? running_ : waiting_;
  // Behind the outputs before it: those that run stand one after another.
  Outputs& outputs = by_id_.find(first.request().id)->second;
  const auto place = runs ? std::next(outputs.back()) : list.end();
  const auto it = list.emplace(place, first.request_, index, layout_, pool_);
  outputs.push_back(it);

  Sequence& sequence = *it;
  sequence.rank_ = first.rank_;
  sequence.rank_.index = index;
  sequence.account_ = first.account_;
  sequence.started_ = true;
  sequence.paused_ = first.paused_;
  sequence.num_outputs_ = 1;
  sequence.max_computed_ = first.max_computed_;
  sequence.Reserve();
  if (runs) {
    ++num_seats_;
    sequence.running_ = true;
    sequence.num_computed_ = first.num_computed_;
    sequence.num_published_ = first.num_published_;
    sequence.may_share_next_ = true;
    sequence.blocks_.ShareAll(first.blocks_);
  } else {
    sequence.expected_tokens_ = sequence.num_pending() + 1;
    if (!sequence.paused_) PushWaiting(sequence, /*is_new=*/false);
  }
  return sequence;
}

}  // namespace quire
