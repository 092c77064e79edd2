#include "tests/kernels/cuda/emulated_backend.h"

#include <utility>

#include "kernels/activation/cuda.cuh"
#include "kernels/cuda/backend_impl.h"
#include "kernels/embedding/cuda.cuh"
#include "kernels/gated_activation/cuda.cuh"
#include "kernels/gather_rows/cuda.cuh"
#include "kernels/layer_norm/cuda.cuh"
#include "kernels/paged_attention/cuda.cuh"
#include "kernels/rms_norm/cuda.cuh"
#include "kernels/rope/cuda.cuh"
#include "kernels/sampling/cuda.cuh"

namespace quire {

std::unique_ptr<Backend> MakeEmulatedCudaBackend(const cuda::EmulationOptions& options, bool deterministic,
                                                 cuda::EmulatedDevice** device, bool prefills_by_wgmma) {
  auto made = std::make_unique<cuda::EmulatedDevice>(options);
  if (device != nullptr) *device = made.get();
  return std::make_unique<cuda::CudaBackend<cuda::EmulatedDevice>>(std::move(made), deterministic, prefills_by_wgmma);
}

}  // namespace quire
