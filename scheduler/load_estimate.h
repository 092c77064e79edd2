// LoadEstimate: how long things take on this machine under this load, learnt from the steps that were run.
//
// All means are exponentially weighted. Until something was measured its estimate is zero: nobody is refused on a
// guess. Time is an argument. Thread: the engine thread.

#ifndef QUIRE_SCHEDULER_LOAD_ESTIMATE_H_
#define QUIRE_SCHEDULER_LOAD_ESTIMATE_H_

#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace quire {

class LoadEstimate {
 public:
  // A step is over that ran `num_rows` positions, `num_prefill` of them without drawing a token.
  void OnStep(absl::Time now, absl::Duration duration, int32_t num_rows, int32_t num_prefill);

  // A batch was filled: `num_admitted` sequences ceased to wait, and others had to stay if `queue_is_left`.
  void OnScheduled(absl::Time now, int32_t num_admitted, bool queue_is_left);

  // An output is complete with this many tokens.
  void OnOutput(int32_t num_tokens);

  // To run the positions of prompts, at the rate of steps that mostly did that, and many of them. Zero if the last one
  // was so long ago that it says little: a refusal must not outlive its cause.
  absl::Duration PrefillTime(absl::Time now, int64_t num_tokens) const;

  // Until the last of `num_sequences` that wait first in the queue is admitted, by the mean time between admissions
  // while somebody waits.
  absl::Duration QueueTime(absl::Time now, int64_t num_sequences) const;

  // To generate an output of at most max_tokens.
  absl::Duration OutputTime(uint32_t max_tokens) const;

 private:
  // Sums with forgetting: rows of steps that mostly prefilled, and the seconds that they took.
  double prefill_rows_ = 0;
  double prefill_seconds_ = 0;
  absl::Time last_prefill_ = absl::InfinitePast();

  // The same for all steps.
  double steps_ = 0;
  double step_seconds_ = 0;
  double output_tokens_ = 0;  // mean; 0 before the first output

  std::optional<absl::Time> blocked_since_;  // somebody waits since then, and nobody was admitted
  std::optional<double> admission_seconds_;  // mean time between admissions
};

}  // namespace quire

#endif  // QUIRE_SCHEDULER_LOAD_ESTIMATE_H_
