// Timers: the moments at which requests end by themselves, earliest first.
//
// Thread: the engine thread. Owned by the Scheduler.

#ifndef QUIRE_SCHEDULER_TIMERS_H_
#define QUIRE_SCHEDULER_TIMERS_H_

#include <cstdint>
#include <tuple>

#include "absl/container/btree_set.h"
#include "absl/time/time.h"
#include "scheduler/request.h"

namespace quire {

// In this order if several come at the same moment.
enum class Timer : uint8_t { kDeadline, kQueueDeadline, kTimeLimit };

class Timers {
 public:
  struct Due {
    RequestId id;
    Timer timer;
  };

  // The request waits: all of its timers run.
  void Add(const Request& request) {
    for (const Timer timer : {Timer::kDeadline, Timer::kQueueDeadline, Timer::kTimeLimit}) {
      const absl::Time time = TimeOf(request, timer);
      if (time != absl::InfiniteFuture()) timers_.emplace(time, timer, request.id);
    }
  }

  // The request has started: its queue_deadline is met.
  void OnStarted(const Request& request) { Erase(request, Timer::kQueueDeadline); }

  // The request is over.
  void Remove(const Request& request) {
    for (const Timer timer : {Timer::kDeadline, Timer::kQueueDeadline, Timer::kTimeLimit}) Erase(request, timer);
  }

  // When the next one goes off; InfiniteFuture if none will.
  absl::Time Next() const { return timers_.empty() ? absl::InfiniteFuture() : std::get<absl::Time>(*timers_.begin()); }

  // What goes off then. REQUIRES: Next() is finite.
  Due First() const { return {std::get<RequestId>(*timers_.begin()), std::get<Timer>(*timers_.begin())}; }

 private:
  static absl::Time TimeOf(const Request& request, Timer timer) {
    switch (timer) {
      case Timer::kDeadline:
        return request.deadline;
      case Timer::kQueueDeadline:
        return request.queue_deadline;
      case Timer::kTimeLimit:
        break;
    }
    return request.time_limit;
  }
  void Erase(const Request& request, Timer timer) {
    const absl::Time time = TimeOf(request, timer);
    if (time != absl::InfiniteFuture()) timers_.erase({time, timer, request.id});
  }

  absl::btree_set<std::tuple<absl::Time, Timer, RequestId>> timers_;
};

}  // namespace quire

#endif  // QUIRE_SCHEDULER_TIMERS_H_
