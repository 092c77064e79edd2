#include "kernels/cuda/cuda_device.cuh"
#include "kernels/embedding/cuda.cuh"

namespace quire::cuda {

template void Embedding(const EmbeddingArgs&, CudaDevice&);

}  // namespace quire::cuda
