// The CUDA backend: one GPU of compute capability 8.0 or later, kernels of ours and cuBLASLt for the linears. In a
// build without the CUDA toolkit these functions say so.

#ifndef QUIRE_KERNELS_BACKEND_CUDA_H_
#define QUIRE_KERNELS_BACKEND_CUDA_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace quire {

// UNIMPLEMENTED: built without CUDA, a device that is too old or lacks what was asked for; UNAVAILABLE: no device. One
// line each.
absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(const BackendOptions& options);

// A backend of which only sizes can be asked, for a device with `device_bytes` of free memory that need not be there:
// in every build.
std::unique_ptr<Backend> CreatePlannedCudaBackend(uint64_t device_bytes);

// Whether this build has CUDA and the machine a device.
bool HasCudaDevice();

}  // namespace quire

#endif  // QUIRE_KERNELS_BACKEND_CUDA_H_
