// What the backend asks of a device before anything runs on it.

#ifndef QUIRE_KERNELS_CUDA_DEVICE_INFO_H_
#define QUIRE_KERNELS_CUDA_DEVICE_INFO_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace quire::cuda {

struct DeviceInfo {
  std::string name;              // e.g. "NVIDIA H200"
  int32_t major = 0, minor = 0;  // compute capability
  int32_t num_sms = 0;
  size_t max_shared_bytes = 0;  // of a CTA
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;  // before this process took any
};

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_CUDA_DEVICE_INFO_H_
