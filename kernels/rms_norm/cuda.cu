#include "kernels/cuda/cuda_device.cuh"
#include "kernels/rms_norm/cuda.cuh"

namespace quire::cuda {

template void RmsNorm(const RmsNormArgs&, CudaDevice&);

}  // namespace quire::cuda
