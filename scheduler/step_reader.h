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

// What a step brought for one chunk beside one token.
struct ChunkDetail {
  absl::Span<const SampledToken> more_sampled;  // [num_draws - 1]: of the outputs after the first
  absl::Span<const TokenLogprob> top;           // [num_draws, num_logprobs]
  absl::Span<const float> prompt_logprobs;      // [scored rows], from row chunk->begin on
  absl::Span<const TokenLogprob> prompt_top;    // [scored rows, num_prompt_logprobs]
};

// What a step brought for one chunk.
struct ChunkResult {
  const Chunk* chunk;
  const SampledToken* sampled;  // if chunk->samples
  const ChunkDetail* detail;    // if chunk->brings_more

  // Whether every row of logits that something was made of is.
  bool IsFinite() const { return (!chunk->samples || sampled->finite) && (!chunk->brings_more || IsDetailFinite()); }

 private:
  bool IsDetailFinite() const {
    const auto is_finite = [](const SampledToken& token) { return token.finite; };
    return std::all_of(detail->more_sampled.begin(), detail->more_sampled.end(), is_finite) &&
           std::none_of(detail->prompt_logprobs.begin(), detail->prompt_logprobs.end(),
                        [](float x) { return std::isnan(x); });
  }
};

class StepReader {
 public:
  // REQUIRES: the result of a batch of `num_chunks` chunks (Check, also below).
  StepReader(const StepResult& result, size_t num_chunks)
      : sampled_(result.sampled.data()),
        more_sampled_(result.more_sampled),
        top_(result.top),
        prompt_logprobs_(result.prompt_logprobs),
        prompt_top_(result.prompt_top) {
    Check(result.sampled.size() >= num_chunks, "a step's result is shorter than its batch");
  }

  // The part of the next chunk of the batch. Its detail is valid until the call after this one.
  ChunkResult Next(const Chunk& chunk) {
    if (chunk.brings_more) TakeDetail(chunk);
    return {.chunk = &chunk, .sampled = sampled_++, .detail = &detail_};
  }

 private:
  void TakeDetail(const Chunk& chunk) {
    detail_ = {};
    if (chunk.samples) {
      detail_.more_sampled = Take(more_sampled_, chunk.num_draws - 1);
      detail_.top = Take(top_, size_t(chunk.num_draws) * chunk.sequence->num_top());
    }
    if (chunk.scores_prompt) {
      const int32_t end = std::min(chunk.begin + chunk.count, chunk.sequence->num_prompt() - 1);
      const size_t num_rows = end - chunk.begin;
      detail_.prompt_logprobs = Take(prompt_logprobs_, num_rows);
      detail_.prompt_top = Take(prompt_top_, num_rows * *chunk.sequence->request().num_prompt_logprobs);
    }
  }

  template <typename T>
  static absl::Span<const T> Take(absl::Span<const T>& rest, size_t count) {
    Check(count <= rest.size(), "a step's result is shorter than its batch");
    const absl::Span<const T> taken = rest.first(count);
    rest.remove_prefix(count);
    return taken;
  }

  // What is still to be read.
  const SampledToken* sampled_;
  absl::Span<const SampledToken> more_sampled_;
  absl::Span<const TokenLogprob> top_;
  absl::Span<const float> prompt_logprobs_;
  absl::Span<const TokenLogprob> prompt_top_;
  ChunkDetail detail_;  // of the last chunk that has one
};

}  // namespace quire

#endif  // QUIRE_SCHEDULER_STEP_READER_H_
