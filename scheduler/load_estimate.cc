#include "scheduler/load_estimate.h"

#include <algorithm>
#include <cmath>

namespace quire {
namespace {

// What is left of an old sample's weight after each new one: a mean remembers about ten admissions, outputs or prompts,
// and the steps of the last second, or twenty.
constexpr double kDecay = 0.9;
constexpr double kStepDecay = 0.95;
constexpr double kStepMemorySeconds = 1;
// Prefills are forgotten when there was none for so long: who refuses everybody measures nothing, and would go on.
constexpr absl::Duration kMemory = absl::Seconds(10);
// Positions from which a step says how fast prefilling is: fewer take what any step takes, and a prompt would be
// refused for what prompts that were cached but for a few tokens took.
constexpr int32_t kMinPrefillRows = 16;
// A step counts for at most so many times what was to be expected: one that was held up (a machine that pauses) says
// little of the next ones, and steps that stay slow are believed soon enough.
constexpr double kMaxSurprise = 8;

double Mixed(double mean, double sample, double decay) {
  return mean == 0 ? sample : decay * mean + (1 - decay) * sample;
}

}  // namespace

void LoadEstimate::OnStep(absl::Time now, absl::Duration duration, int32_t num_rows, int32_t num_prefill) {
  const double seconds = absl::ToDoubleSeconds(duration);
  if (num_prefill >= kMinPrefillRows && 2 * num_prefill >= num_rows) {
    if (now - last_prefill_ > kMemory) prefill_rows_ = prefill_seconds_ = 0;
    const double expected = prefill_seconds_ > 0 ? prefill_seconds_ / prefill_rows_ * num_rows : seconds;
    // Sums, not a mean of rates: a long step says more than a short one.
    prefill_rows_ = kDecay * prefill_rows_ + num_rows;
    prefill_seconds_ = kDecay * prefill_seconds_ + std::min(seconds, kMaxSurprise * expected);
    last_prefill_ = now;
  }
  // An output of many short steps takes the sum of them: what single ones take, held up or not, says little of that.
  const double decay = std::max(kStepDecay, std::exp(-seconds / kStepMemorySeconds));
  steps_ = decay * steps_ + 1;
  step_seconds_ = decay * step_seconds_ + seconds;
}

void LoadEstimate::OnScheduled(absl::Time now, int32_t num_admitted, bool queue_is_left) {
  if (num_admitted > 0 && blocked_since_) {
    const double sample = absl::ToDoubleSeconds(now - *blocked_since_) / num_admitted;
    const double decay = admission_seconds_ ? std::pow(kDecay, num_admitted) : 0;
    admission_seconds_ = decay * admission_seconds_.value_or(0) + (1 - decay) * sample;
  }
  if (!queue_is_left) {
    blocked_since_.reset();
  } else if (num_admitted > 0 || !blocked_since_) {
    blocked_since_ = now;
  }
}

void LoadEstimate::OnOutput(int32_t num_tokens) { output_tokens_ = Mixed(output_tokens_, num_tokens, kDecay); }

absl::Duration LoadEstimate::PrefillTime(absl::Time now, int64_t num_tokens) const {
  if (prefill_rows_ == 0 || now - last_prefill_ > kMemory) return absl::ZeroDuration();
  return absl::Seconds(prefill_seconds_ / prefill_rows_ * static_cast<double>(num_tokens));
}

absl::Duration LoadEstimate::QueueTime(absl::Time now, int64_t num_sequences) const {
  if (num_sequences == 0) return absl::ZeroDuration();
  double seconds = admission_seconds_.value_or(0);
  // If the present pause is longer than the mean, it counts: the queue has come to a halt.
  const double pause = blocked_since_ ? absl::ToDoubleSeconds(now - *blocked_since_) : 0;
  seconds *= static_cast<double>(num_sequences);
  return absl::Seconds(std::max(seconds, pause));
}

absl::Duration LoadEstimate::OutputTime(uint32_t max_tokens) const {
  if (steps_ == 0) return absl::ZeroDuration();
  return absl::Seconds(std::min<double>(max_tokens, output_tokens_) * step_seconds_ / steps_);
}

}  // namespace quire
