#include "kernels/activation/cuda.cuh"
#include "kernels/cuda/cuda_device.cuh"

namespace quire::cuda {

template void Activation(const ActivationArgs&, CudaDevice&);

}  // namespace quire::cuda
