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

}  // namespace quire

#endif  // QUIRE_KERNELS_SAMPLING_ADJUST_H_
