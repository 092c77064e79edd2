// SamplingKernels: the passes over the vocabulary, one table of them for each instruction set.
//
// The vocabulary is taken in stretches of kStretch ids, the last one shorter; a pass may leave a number for each. Types
// only: see kernels/CMakeLists.txt.

#ifndef QUIRE_KERNELS_SAMPLING_SCAN_H_
#define QUIRE_KERNELS_SAMPLING_SCAN_H_

#include <cstdint>

namespace quire::sampling {

inline constexpr int64_t kStretch = 64;

struct SamplingKernels {
  // maxima[i] = the largest logit of stretch i. Returns whether no logit is NaN or +inf; if not, maxima are
  // unspecified.
  bool (*scan)(const float* logits, int64_t n, float* maxima);

  // The sum of the weights (see weight.h) of n logits, by stretch in `sums` unless that is nullptr.
  uint64_t (*sum)(const float* logits, int64_t n, float max, float inverse_temperature, uint64_t* sums);

  // The sum of those of n weights that are at least `bound`.
  uint64_t (*sum_at_least)(const uint64_t* weights, int64_t n, uint64_t bound);

  // The weights of n logits.
  void (*weigh)(const float* logits, int64_t n, float max, float inverse_temperature, uint64_t* weights);
};

// Each may be called only if SupportedCpuIsas() names its instruction set. The x86 ones exist only in x86-64 builds.
const SamplingKernels& PortableSampling();
const SamplingKernels& Avx2Sampling();
const SamplingKernels& Avx512Sampling();

}  // namespace quire::sampling

#endif  // QUIRE_KERNELS_SAMPLING_SCAN_H_
