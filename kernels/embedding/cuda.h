// Embedding on CUDA: all pointers are the device's. Device is CudaDevice, or the emulation's in tests.

#ifndef QUIRE_KERNELS_EMBEDDING_CUDA_H_
#define QUIRE_KERNELS_EMBEDDING_CUDA_H_

#include "kernels/embedding/embedding.h"

namespace quire::cuda {

template <typename Device>
void Embedding(const EmbeddingArgs& args, Device& device);

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_EMBEDDING_CUDA_H_
