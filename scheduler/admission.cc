#include "scheduler/admission.h"

#include <algorithm>

namespace quire {
namespace {

// The estimate of what a request takes is multiplied by this before it is held against the deadline: half of all would
// come too late if it were not, and what comes too late is lost whole.
constexpr double kMargin = 1.25;

// From its start to its last token.
absl::Duration RunTime(const LoadEstimate& load, absl::Time now, const Candidate& candidate) {
  return load.PrefillTime(now, candidate.num_tokens) + load.OutputTime(candidate.max_tokens);
}

// Until enough of what waits has been admitted.
absl::Duration DrainTime(const LoadEstimate& load, absl::Time now, const Workload& waiting, int64_t excess_tokens) {
  const int64_t num_sequences =
      (excess_tokens * waiting.num_sequences + waiting.num_tokens - 1) / std::max<int64_t>(waiting.num_tokens, 1);
  return std::max(load.QueueTime(now, num_sequences), load.PrefillTime(now, excess_tokens));
}

std::optional<Refusal> JudgeLimits(const AdmissionLimits& limits, const LoadEstimate& load, absl::Time now,
                                   const Candidate& candidate) {
  const auto refuse = [](absl::Duration delay) { return Refusal{Ending::kRefused, RetryDelay(delay)}; };
  const Workload& all = candidate.all;
  const Workload& own = candidate.of_tenant;
  if (all.num_sequences > 0 && all.num_tokens + candidate.num_tokens > limits.max_waiting_tokens) {
    return refuse(DrainTime(load, now, all, all.num_tokens + candidate.num_tokens - limits.max_waiting_tokens));
  }
  if (own.num_sequences >= limits.max_waiting_requests_per_tenant) {
    // One of its own must go; those of others go between them.
    return refuse(load.QueueTime(now, (all.num_sequences + own.num_sequences - 1) / own.num_sequences));
  }
  if (own.num_sequences > 0 && own.num_tokens + candidate.num_tokens > limits.max_waiting_tokens_per_tenant) {
    return refuse(
        DrainTime(load, now, all, own.num_tokens + candidate.num_tokens - limits.max_waiting_tokens_per_tenant));
  }
  return std::nullopt;
}

}  // namespace

absl::Duration RetryDelay(absl::Duration estimate) {
  return std::clamp(estimate, absl::Milliseconds(10), absl::Seconds(60));
}

std::optional<Refusal> Judge(const AdmissionLimits& limits, const LoadEstimate& load, absl::Time now,
                             const Candidate& candidate) {
  if (!candidate.can_start) {
    if (const std::optional<Refusal> refusal = JudgeLimits(limits, load, now, candidate)) return refusal;
  }
  const absl::Duration left = candidate.deadline - now;
  // If it has expired already, that is what it is told.
  if (candidate.deadline == absl::InfiniteFuture() || left <= absl::ZeroDuration()) return std::nullopt;
  const int64_t num_ahead = candidate.ahead.num_tokens + candidate.num_running_tokens;
  if (load.PrefillTime(now, num_ahead + candidate.num_tokens) > left) {
    return Refusal{Ending::kDeadlineUnreachable, absl::ZeroDuration()};
  }
  if (candidate.can_start) return std::nullopt;
  const absl::Duration run = kMargin * RunTime(load, now, candidate);
  const absl::Duration wait =
      kMargin * std::max(load.QueueTime(now, candidate.ahead.num_sequences + 1), load.PrefillTime(now, num_ahead));
  if (run <= left && wait + run > left) return Refusal{Ending::kRefused, RetryDelay(wait + run - left)};
  return std::nullopt;
}

bool IsWorthStarting(const LoadEstimate& load, absl::Time now, const Candidate& candidate, absl::Time arrival) {
  if (candidate.deadline == absl::InfiniteFuture()) return true;
  const absl::Duration left = candidate.deadline - now;
  if (load.PrefillTime(now, candidate.num_tokens) > left) return false;
  const absl::Duration run = kMargin * RunTime(load, now, candidate);
  return run <= left || run > candidate.deadline - arrival;
}

}  // namespace quire
