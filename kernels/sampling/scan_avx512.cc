#include "kernels/cpu/vector_avx512.h"
#include "kernels/sampling/scan_body.h"

namespace quire::sampling {

const SamplingKernels& Avx512Sampling() { return kSamplingKernels; }

}  // namespace quire::sampling
