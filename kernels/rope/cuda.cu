#include "kernels/cuda/cuda_device.cuh"
#include "kernels/rope/cuda.cuh"

namespace quire::cuda {

template void RopeKvWrite(const RopeKvWriteArgs&, CudaDevice&);

}  // namespace quire::cuda
