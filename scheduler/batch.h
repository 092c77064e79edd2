// Batch: what one step runs. Chunk: consecutive tokens of one sequence in it.

#ifndef QUIRE_SCHEDULER_BATCH_H_
#define QUIRE_SCHEDULER_BATCH_H_

#include <cstdint>
#include <vector>

#include "kernels/sampling/sampling.h"
#include "scheduler/sequence.h"

namespace quire {

// Runs positions [begin, begin + count) of a sequence. REQUIRES: begin == sequence->num_computed() when scheduled.
struct Chunk {
  const Sequence* sequence = nullptr;  // alive until the batch is committed
  int32_t begin = 0;
  int32_t count = 0;
  // begin + count == tokens().size(): the last row feeds the head and one token is drawn from it.
  bool samples = false;
  // Every row whose successor is a prompt token is scored against it (prompt log-probabilities).
  bool scores_prompt = false;
};

struct Batch {
  std::vector<Chunk> chunks;
  int32_t num_tokens = 0;  // sum of the chunks' counts: rows of the step

  bool empty() const { return chunks.empty(); }
  void clear() {
    chunks.clear();
    num_tokens = 0;
  }
};

// What a step brought, chunk by chunk. Reused from step to step: vectors keep their capacity.
struct StepResult {
  std::vector<SampledToken> sampled;  // [chunks]: of chunks that sample; others are unspecified
  std::vector<TokenLogprob> top;  // the best log-probabilities of sampled tokens, chunk after chunk (num_logprobs each)
  // Of chunks with scores_prompt, one after another: the row of position p scores the prompt token at p + 1, for p from
  // `begin` to min(begin + count, num_prompt - 1), exclusive.
  std::vector<float> prompt_logprobs;
  std::vector<TokenLogprob> prompt_top;  // num_prompt_logprobs of each
};

}  // namespace quire

#endif  // QUIRE_SCHEDULER_BATCH_H_
