// What the backend asks of a device before anything runs on it, and how it says what is amiss: one line each. Plain
// C++, so that it is tested where there is no device.

#ifndef QUIRE_KERNELS_CUDA_DEVICE_INFO_H_
#define QUIRE_KERNELS_CUDA_DEVICE_INFO_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/backend.h"

namespace quire::cuda {

struct DeviceInfo {
  std::string name;              // e.g. "NVIDIA H200"
  int32_t major = 0, minor = 0;  // compute capability
  int32_t num_sms = 0;
  size_t max_shared_bytes = 0;  // of a CTA
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;  // before this process took any
};

// UNAVAILABLE.
absl::Status NoDevice(absl::string_view why);

// UNIMPLEMENTED: a compute capability below 8.0; CTAs with less than `needed` bytes of shared memory.
absl::Status CheckCapability(const DeviceInfo& info);
absl::Status CheckSharedMemory(const DeviceInfo& info, size_t needed, int32_t group, int32_t head_dim);

// Whether prefill attention takes wgmma. UNIMPLEMENTED: it was asked for, and the device has none.
absl::StatusOr<bool> PrefillsByWgmma(const DeviceInfo& info, PrefillAttention chosen);

// RESOURCE_EXHAUSTED: what was asked for, what is free, and the flags that fit it in.
absl::Status OutOfDeviceMemory(size_t needed, size_t free_bytes, size_t total_bytes);

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_CUDA_DEVICE_INFO_H_
