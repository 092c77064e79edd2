#include "kernels/cuda/cuda_device.cuh"
#include "kernels/sampling/cuda.cuh"

namespace quire::cuda {

template void Sample(const SampleArgs&, CudaDevice&);
template void Score(const ScoreArgs&, CudaDevice&);

}  // namespace quire::cuda
