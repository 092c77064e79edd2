// Batch: what one step runs. Chunk: consecutive tokens of one sequence in it.

#ifndef QUIRE_SCHEDULER_BATCH_H_
#define QUIRE_SCHEDULER_BATCH_H_

#include <cstdint>
#include <vector>

#include "kernels/copy_blocks/copy_blocks.h"
#include "kernels/sampling/sampling.h"
#include "scheduler/sequence.h"

namespace quire {

// Runs positions [begin, begin + count) of a sequence, those after the ones that it has run.
struct Chunk {
  Sequence* sequence = nullptr;  // alive until the batch is committed
  int32_t begin = 0;
  int32_t count = 0;
  // takes_drawn: count == 1, and the host has not seen the token at `begin`: it is the one that chunk `source` of the
  // batch before draws.
  int32_t source = 0;
  bool takes_drawn = false;
  // begin + count == len(): the last row feeds the head and tokens are drawn from it, for the outputs
  // sequence->index() and following: one, but all n where the prompt of a request of n outputs is complete.
  bool samples = false;
  // Every row whose successor is a prompt token is scored against it (prompt log-probabilities).
  bool scores_prompt = false;
  // It brings more than one token: those of other outputs, the best log-probabilities, scores.
  bool brings_more = false;
  int32_t num_draws = 1;  // if it samples
};

struct Batch {
  // Overwritten with zeros before all else: nobody holds them, or who does has not written to them.
  std::vector<BlockId> scrubs;
  // Carried out before any chunk writes: copy-on-write. No block that is written is named in another copy.
  std::vector<BlockCopy> copies;
  std::vector<Chunk> chunks;
  int32_t num_tokens = 0;  // sum of the chunks' counts: rows of the step
  uint64_t number = 0;     // counts the batches of a scheduler

  bool empty() const { return chunks.empty(); }
  void clear() {
    scrubs.clear();
    copies.clear();
    chunks.clear();
    num_tokens = 0;
  }
};

// What a step brought, chunk by chunk. Reused from step to step: vectors keep their capacity.
struct StepResult {
  std::vector<SampledToken> sampled;  // [chunks]: of chunks that sample; others are unspecified
  // Of chunks with num_draws > 1, one after another: the tokens of their outputs 1 to num_draws - 1.
  std::vector<SampledToken> more_sampled = {};
  // The best log-probabilities of all sampled tokens, chunk after chunk, output after output (num_logprobs each).
  std::vector<TokenLogprob> top;
  // Of chunks with scores_prompt, one after another: the row of position p scores the prompt token at p + 1, for p from
  // `begin` to min(begin + count, num_prompt - 1), exclusive.
  std::vector<float> prompt_logprobs;
  std::vector<TokenLogprob> prompt_top;  // num_prompt_logprobs of each
};

}  // namespace quire

#endif  // QUIRE_SCHEDULER_BATCH_H_
