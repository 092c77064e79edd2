// What bias and penalties make of one logit (sampling.h, steps 3 and 4): the same few operations, each rounded once, in
// every implementation.

#ifndef QUIRE_KERNELS_SAMPLING_ADJUST_H_
#define QUIRE_KERNELS_SAMPLING_ADJUST_H_

#include <algorithm>
#include <limits>

#include "kernels/sampling/sampling.h"

namespace quire {

// A tiny repetition_penalty takes a logit beyond the largest float: it stays there, for infinity is no logit. -inf, a
// token that cannot be drawn, remains so.
constexpr float WithinFloats(float adjusted, float logit) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  return logit == -std::numeric_limits<float>::infinity() ? logit : std::clamp(adjusted, -kLargest, kLargest);
}

constexpr float Biased(float logit, float bias) { return WithinFloats(logit + bias, logit); }

constexpr float Penalized(float logit, const SamplingParams& params, const TokenCount& token) {
  float penalized = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
  if (token.in_output > 0) {
    penalized -= params.frequency_penalty * static_cast<float>(token.in_output);
    penalized -= params.presence_penalty;
  }
  return WithinFloats(penalized, logit);
}

// Calls f(count) for each token that penalties are about: those of row.counts, and the one that is in `drawn` (of
// SampleArgs).
template <typename Function>
void ForEachCount(const SampleRow& row, const SampledToken* drawn, const Function& f) {
  bool is_counted = !row.drawn.has_value();
  const uint32_t last = is_counted ? 0 : drawn[*row.drawn].id;
  for (TokenCount token : row.counts) {
    if (!is_counted && token.id == last) {
      ++token.in_output;
      is_counted = true;
    }
    f(token);
  }
  if (!is_counted) f(TokenCount{last, 1});
}

}  // namespace quire

#endif  // QUIRE_KERNELS_SAMPLING_ADJUST_H_
