#include <cuda_runtime.h>

#include <utility>

#include "kernels/backend_cuda.h"
#include "kernels/cuda/backend_impl.h"
#include "kernels/cuda/cuda_device.cuh"

namespace quire {

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(const BackendOptions& options) {
  absl::StatusOr<std::unique_ptr<cuda::CudaDevice>> device = cuda::CudaDevice::Create(options.deterministic.value_or(false));
  if (!device.ok()) return device.status();
  return std::make_unique<cuda::CudaBackend<cuda::CudaDevice>>(*std::move(device), options.deterministic.value_or(false));
}

bool HasCudaDevice() {
  int num_devices = 0;
  return cudaGetDeviceCount(&num_devices) == cudaSuccess && num_devices > 0;
}

}  // namespace quire
