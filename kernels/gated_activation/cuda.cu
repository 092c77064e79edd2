#include "kernels/cuda/cuda_device.cuh"
#include "kernels/gated_activation/cuda.cuh"

namespace quire::cuda {

template void GatedActivation(const GatedActivationArgs&, CudaDevice&);

}  // namespace quire::cuda
