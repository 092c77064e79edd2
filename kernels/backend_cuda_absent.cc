// What a build without the CUDA toolkit has instead of kernels/backend_cuda.cu.

#include "absl/status/status.h"
#include "kernels/backend_cuda.h"

namespace quire {

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(const BackendOptions&) {
  return absl::UnimplementedError(
      "backend cuda: this build has no CUDA backend (no CUDA toolkit was found when it was configured); it has cpu and "
      "ref");
}

bool HasCudaDevice() { return false; }

}  // namespace quire
