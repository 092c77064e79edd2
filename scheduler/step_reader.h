// StepReader: takes a StepResult apart, chunk by chunk.
//
// Owns nothing: batch and result outlive it and what it gives.

#ifndef QUIRE_SCHEDULER_STEP_READER_H_
#define QUIRE_SCHEDULER_STEP_READER_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/check.h"
#include "scheduler/batch.h"

namespace quire {

// What a step brought for one chunk.
struct ChunkResult {
  const Chunk* chunk;
  const SampledToken* sampled;                // if chunk->samples
  absl::Span<const SampledToken> more;        // [num_draws - 1]: of the outputs after that
  absl::Span<const TokenLogprob> top;         // [num_draws, num_logprobs]
  absl::Span<const float> prompt_logprobs;    // [scored rows], from row chunk->begin on
  absl::Span<const TokenLogprob> prompt_top;  // [scored rows, num_prompt_logprobs]

  // Whether every row of logits that something was made of is.
  bool IsFinite() const {
    const auto is_finite = [](const SampledToken& token) { return token.finite; };
    if (chunk->samples && !(sampled->finite && std::all_of(more.begin(), more.end(), is_finite))) return false;
    return std::none_of(prompt_logprobs.begin(), prompt_logprobs.end(), [](float x) { return std::isnan(x); });
  }
};

class StepReader {
 public:
  // REQUIRES: the result of a batch of `num_chunks` chunks (Check, also below).
  StepReader(const StepResult& result, size_t num_chunks)
      : sampled_(result.sampled.data()),
        more_(result.more_sampled),
        top_(result.top),
        prompt_logprobs_(result.prompt_logprobs),
        prompt_top_(result.prompt_top) {
    Check(result.sampled.size() >= num_chunks, "a step's result is shorter than its batch");
  }

  // The part of the next chunk of the batch.
  ChunkResult Next(const Chunk& chunk) {
    ChunkResult result;
    result.chunk = &chunk;
    result.sampled = sampled_++;
    if (chunk.samples && chunk.num_draws > 1) result.more = Take(more_, chunk.num_draws - 1);
    const int32_t num_top = chunk.sequence->num_top();
    if (chunk.samples && num_top > 0) result.top = Take(top_, size_t(chunk.num_draws) * num_top);
    if (chunk.scores_prompt) {
      const int32_t end = std::min(chunk.begin + chunk.count, chunk.sequence->num_prompt() - 1);
      const size_t num_rows = end - chunk.begin;
      result.prompt_logprobs = Take(prompt_logprobs_, num_rows);
      result.prompt_top = Take(prompt_top_, num_rows * *chunk.sequence->request().num_prompt_logprobs);
    }
    return result;
  }

 private:
  template <typename T>
  static absl::Span<const T> Take(absl::Span<const T>& rest, size_t count) {
    Check(count <= rest.size(), "a step's result is shorter than its batch");
    const absl::Span<const T> taken = rest.first(count);
    rest.remove_prefix(count);
    return taken;
  }

  // What is still to be read.
  const SampledToken* sampled_;
  absl::Span<const SampledToken> more_;
  absl::Span<const TokenLogprob> top_;
  absl::Span<const float> prompt_logprobs_;
  absl::Span<const TokenLogprob> prompt_top_;
};

}  // namespace quire

#endif  // QUIRE_SCHEDULER_STEP_READER_H_
