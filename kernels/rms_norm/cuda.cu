#include "kernels/rms_norm/cuda.cuh"

#include "kernels/cuda/cuda_device.cuh"

namespace quire::cuda {

template void RmsNorm(const RmsNormArgs&, CudaDevice&);

}  // namespace quire::cuda
