// Sample and Score on CUDA: the same tokens as the definition, bit by bit (weights are integers, their sums exact);
// log-probabilities to within the contract. All pointers are the device's. Device is CudaDevice, or the emulation's.

#ifndef QUIRE_KERNELS_SAMPLING_CUDA_H_
#define QUIRE_KERNELS_SAMPLING_CUDA_H_

#include <cstdint>

#include "kernels/sampling/sampling.h"

namespace quire::cuda {

// A SampleRow as the device reads it.
struct SampleRow {
  SamplingParams params;
  uint64_t position;
  const uint32_t* allowed;   // [num_allowed]
  const uint32_t* banned;    // [num_banned]
  const TokenBias* bias;     // [num_bias]
  const TokenCount* counts;  // [num_counts]
  float* raw_of_bias;        // scratch: [num_bias]
  float* raw_of_counts;      // scratch: [num_counts]
  int32_t num_allowed, num_banned, num_bias, num_counts;
  bool wants_logprob;
  int32_t num_top;
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
