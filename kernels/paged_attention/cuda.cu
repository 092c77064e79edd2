#include "kernels/paged_attention/cuda.cuh"

#include "kernels/cuda/cuda_device.cuh"

namespace quire::cuda {

template void PagedAttention(const PagedAttentionArgs&, const AttentionContext&, CudaDevice&);

}  // namespace quire::cuda
