#include "kernels/rope/cuda.cuh"

#include "kernels/cuda/cuda_device.cuh"

namespace quire::cuda {

template void RopeKvWrite(const RopeKvWriteArgs&, CudaDevice&);

}  // namespace quire::cuda
