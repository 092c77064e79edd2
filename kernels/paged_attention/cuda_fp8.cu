#include "kernels/cuda/cuda_device.cuh"
#include "kernels/paged_attention/cuda.cuh"

namespace quire::cuda {

template void RunRecordAttention<KvQuantization::kFp8E4M3>(const PagedAttentionArgs&, const AttentionContext&,
                                                           CudaDevice&);

}  // namespace quire::cuda
