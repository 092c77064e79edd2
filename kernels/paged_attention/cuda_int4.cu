#include "kernels/cuda/cuda_device.cuh"
#include "kernels/paged_attention/cuda.cuh"

namespace quire::cuda {

template void RunRecordAttention<KvQuantization::kInt4>(const PagedAttentionArgs&, const AttentionContext&,
                                                        CudaDevice&);

}  // namespace quire::cuda
