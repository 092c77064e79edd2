#include "kernels/cuda/cuda_device.cuh"
#include "kernels/paged_attention/cuda.cuh"

namespace quire::cuda {

extern template void RunRecordAttention<KvQuantization::kFp8E4M3>(const PagedAttentionArgs&, const AttentionContext&,
                                                                  CudaDevice&);
extern template void RunRecordAttention<KvQuantization::kInt8>(const PagedAttentionArgs&, const AttentionContext&,
                                                               CudaDevice&);
extern template void RunRecordAttention<KvQuantization::kInt4>(const PagedAttentionArgs&, const AttentionContext&,
                                                               CudaDevice&);

template void PagedAttention(const PagedAttentionArgs&, const AttentionContext&, CudaDevice&);

}  // namespace quire::cuda
