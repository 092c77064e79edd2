#include "kernels/embedding/cuda.cuh"

#include "kernels/cuda/cuda_device.cuh"

namespace quire::cuda {

template void Embedding(const EmbeddingArgs&, CudaDevice&);

}  // namespace quire::cuda
