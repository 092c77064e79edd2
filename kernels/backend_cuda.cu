#include <cuda_runtime.h>

#include <utility>

#include "kernels/backend_cuda.h"
#include "kernels/cuda/backend_impl.h"
#include "kernels/cuda/cuda_device.cuh"

namespace quire {

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(const BackendOptions& options) {
  const bool deterministic = options.deterministic.value_or(false);
  absl::StatusOr<std::unique_ptr<cuda::CudaDevice>> device = cuda::CudaDevice::Create(deterministic);
  if (!device.ok()) return device.status();
  const absl::StatusOr<bool> by_wgmma = cuda::PrefillsByWgmma((*device)->info(), options.prefill_attention);
  if (!by_wgmma.ok()) return by_wgmma.status();
  return std::make_unique<cuda::CudaBackend<cuda::CudaDevice>>(*std::move(device), deterministic, *by_wgmma);
}

bool HasCudaDevice() {
  int num_devices = 0;
  return cudaGetDeviceCount(&num_devices) == cudaSuccess && num_devices > 0;
}

}  // namespace quire
