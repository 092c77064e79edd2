// Sample and Score on CUDA: the same tokens as the definition, bit by bit (weights are integers, their sums exact);
// log-probabilities to within the contract. All pointers are the device's. Device is CudaDevice, or the emulation's.

#ifndef QUIRE_KERNELS_SAMPLING_CUDA_H_
#define QUIRE_KERNELS_SAMPLING_CUDA_H_

#include <cstdint>

#include "kernels/sampling/sampling.h"

namespace quire::cuda {

// A SampleRow as the device reads it.
struct SampleRow {
  SamplingParams params = {};
  uint64_t position = 0;
  const uint32_t* mask = nullptr;    // a bit for each id, the lowest first: those of 1 may be drawn; or nullptr: all
  const uint32_t* banned = nullptr;  // [num_banned]; they may not
  // [num_bias], [num_counts]. Sample puts the logit that an id had before in place of the number beside it.
  TokenBias* bias = nullptr;
  TokenCount* counts = nullptr;
  const SampledToken* drawn = nullptr;  // the output has this token too; the last count is room for it
  int32_t num_banned = 0, num_bias = 0, num_counts = 0;
  bool wants_logprob = false;
  int32_t num_top = 0;
};

struct SampleArgs {
  Tensor logits;          // float32 [num_rows, vocab_size]; overwritten
  const SampleRow* rows;  // [num_rows]
  SampledToken* tokens;   // out: [num_rows]
  TokenLogprob* top;      // out: [num_rows, top_stride]
  int32_t top_stride;
};

template <typename Device>
void Sample(const SampleArgs& args, Device& device);

template <typename Device>
void Score(const ScoreArgs& args, Device& device);

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_SAMPLING_CUDA_H_
