#include "kernels/cpu/vector_avx2.h"
#include "kernels/sampling/scan_body.h"

namespace quire::sampling {

const SamplingKernels& Avx2Sampling() { return kSamplingKernels; }

}  // namespace quire::sampling
