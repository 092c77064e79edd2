// AdmissionRate: how long until the next waiting request gets its turn, learnt from those that did.
//
// An exponentially weighted mean of the time between admissions, counted only while somebody waits: an idle hour says
// nothing about a full queue. Time is an argument. Thread: none of its own; the owner guards it.

#ifndef QUIRE_ENGINE_ADMISSION_RATE_H_
#define QUIRE_ENGINE_ADMISSION_RATE_H_

#include <algorithm>
#include <cmath>

#include "absl/time/time.h"

namespace quire {

class AdmissionRate {
 public:
  // Somebody waits from `now` on, nobody did before.
  void OnQueueBegins(absl::Time now) { since_ = now; }

  // `count` of those who wait are admitted at once. REQUIRES: count >= 1.
  void OnAdmitted(absl::Time now, int count) {
    const absl::Duration interval = std::max(now - since_, absl::ZeroDuration()) / count;
    constexpr double kDecay = 0.9;  // of the mean's weight, with each admission: it remembers about ten
    const double old_weight = measured_ ? std::pow(kDecay, count) : 0.0;
    mean_ = mean_ * old_weight + interval * (1.0 - old_weight);
    measured_ = true;
    since_ = now;
  }

  // From 10 ms to 60 s; 1 s before anything was measured. If the present wait is already longer than the mean, that
  // wait.
  absl::Duration Delay(absl::Time now) const {
    const absl::Duration expected = std::max(measured_ ? mean_ : absl::Seconds(1), now - since_);
    return std::clamp(expected, absl::Milliseconds(10), absl::Seconds(60));
  }

 private:
  absl::Time since_ = absl::InfiniteFuture();  // of the last admission, or when the queue began
  absl::Duration mean_;
  bool measured_ = false;
};

}  // namespace quire

#endif  // QUIRE_ENGINE_ADMISSION_RATE_H_
