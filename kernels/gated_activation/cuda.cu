#include "kernels/gated_activation/cuda.cuh"

#include "kernels/cuda/cuda_device.cuh"

namespace quire::cuda {

template void GatedActivation(const GatedActivationArgs&, CudaDevice&);

}  // namespace quire::cuda
