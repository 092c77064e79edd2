#include "kernels/cuda/cuda_device.cuh"
#include "kernels/layer_norm/cuda.cuh"

namespace quire::cuda {

template void LayerNorm(const LayerNormArgs&, CudaDevice&);

}  // namespace quire::cuda
