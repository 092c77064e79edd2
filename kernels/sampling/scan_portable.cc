#include "kernels/cpu/vector_portable.h"
#include "kernels/sampling/scan_body.h"

namespace quire::sampling {

const SamplingKernels& PortableSampling() { return kSamplingKernels; }

}  // namespace quire::sampling
