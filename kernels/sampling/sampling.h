// Sampling: one token of each row of logits, and log-probabilities.
//
// The token is a function of (logits, parameters, what stands before it, seed, position): chance is an argument
// (ARCHITECTURE law 10). The order and the definitions are vLLM's:
//   1. Only `allowed` ids stay, if there are any; others become -inf.
//   2. Logits of `banned` ids become -inf (eos and stop ids below min_tokens).
//   3. `bias` is added.
//   4. Penalties of tokens that stand before. repetition_penalty (Keskar 2019, section 4.1), of prompt and output:
//      divides a positive logit, multiplies another. Then frequency_penalty times how often the output has the token,
//      and presence_penalty if it has it at all, are subtracted. What would get beyond the largest float stays there.
//   5. temperature 0: the id of the largest logit, the smallest id on a tie. Done.
//   6. p = softmax(logits / temperature)
//   7. top_k: only the k largest logits stay, ties at the edge by smaller id. top_p (Holtzman 2020): of what is left,
//      renormalised, the smallest set of largest p whose sum reaches top_p, at least one, ties by smaller id. min_p: of
//      what is left only p >= min_p * max p.
//   8. renormalise; draw with one uniform number from a counter-based generator (Philox4x32-10, Salmon 2011) of key
//      seed, counter position: the first id, in rising order, at which the cumulative p exceeds the number.
// p is held in integer weights (sampling/weight.h), whose sums are exact: every implementation gives the same token.
//
// Log-probabilities are natural logs of softmax(raw logits), before 1; never positive; absolute error below 1e-6.
// A row with a NaN or +inf, or without any finite logit after 2, is `finite == false`: its token is 0, its
// log-probabilities are 0. Example: logits [0, ln 2, ln 4], temperature 1: p = [1/7, 2/7, 4/7]; top_k 2: [0, 1/3, 2/3];
// top_p 0.5 alone: [0, 0, 1].

#ifndef QUIRE_KERNELS_SAMPLING_SAMPLING_H_
#define QUIRE_KERNELS_SAMPLING_SAMPLING_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "kernels/tensor.h"

namespace quire {

// What a request asks of the sampler. Ranges are checked where the request comes in (server/validation).
struct SamplingParams {
  float temperature = 1.0f;         // 0: greedy
  uint32_t top_k = 0;               // 0: off
  float top_p = 1.0f;               // (0, 1]
  float min_p = 0.0f;               // [0, 1]
  float repetition_penalty = 1.0f;  // (0, 100]
  float frequency_penalty = 0.0f;   // [-2, 2]
  float presence_penalty = 0.0f;    // [-2, 2]
  uint64_t seed = 0;

  // Whether the draw depends on the tokens before it.
  bool HasPenalties() const { return repetition_penalty != 1 || frequency_penalty != 0 || presence_penalty != 0; }
};

struct TokenBias {
  uint32_t id;
  float bias;  // [-100, 100]
};

// A token of the prompt or the output.
struct TokenCount {
  uint32_t id;
  uint32_t in_output;  // how often the output has it
};

struct TokenLogprob {
  uint32_t id;
  float logprob;  // -inf for a logit of -inf
};

// One row to draw from.
struct SampleRow {
  const SamplingParams* params = nullptr;
  uint64_t position = 0;  // index in the sequence of the token that is drawn
  // Each names an id at most once. Empty: step 1, 2, 3 or 4 does nothing.
  absl::Span<const uint32_t> allowed;
  absl::Span<const uint32_t> banned;
  absl::Span<const TokenBias> bias;
  absl::Span<const TokenCount> counts;  // all tokens of prompt and output, if the parameters have penalties
  // Then the output may have one more, which the host has not seen: that of this draw of the step before, counted over
  // the rows of its Sample calls. It is not among `counts`.
  std::optional<uint32_t> drawn;
  bool wants_logprob = false;
  int32_t num_top = 0;  // 0 .. 20: how many of the best log-probabilities; counts only with wants_logprob
};

struct SampledToken {
  uint32_t id = 0;
  bool finite = true;
  float logprob = 0;  // of id, if asked for
};

struct SampleArgs {
  Tensor logits;          // float32 [num_rows, vocab_size <= 2^20]; may be overwritten
  const SampleRow* rows;  // [num_rows]
  SampledToken* tokens;   // out: [num_rows]
  TokenLogprob* top;  // out: [num_rows, top_stride]: the num_top best (all, if fewer), by falling logit, then rising id
  int32_t top_stride;  // >= every num_top
  // Of the step before, if any row asks for one. What Sample was given there; a device has its own copy.
  const SampledToken* drawn = nullptr;
};

// Log-probabilities of given tokens (those of a prompt): out[r] is of targets[r] under row r.
struct ScoreArgs {
  Tensor logits;            // float32 [num_rows, vocab_size <= 2^20]; unchanged
  const uint32_t* targets;  // [num_rows]
  int32_t num_top;          // 0 .. 20, for every row
  float* logprobs;          // out: [num_rows]
  TokenLogprob* top;        // out: [num_rows, num_top], ordered as in SampleArgs
};

}  // namespace quire

#endif  // QUIRE_KERNELS_SAMPLING_SAMPLING_H_
