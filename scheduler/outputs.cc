// Scheduler: how the outputs of one request become sequences.

#include <utility>

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
