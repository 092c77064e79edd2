#include "kernels/cuda/cuda_device.cuh"
#include "kernels/gather_rows/cuda.cuh"

namespace quire::cuda {

template void GatherRows(const GatherRowsArgs&, CudaDevice&);

}  // namespace quire::cuda
