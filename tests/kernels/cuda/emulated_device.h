// EmulatedDevice: what CudaDevice (kernels/cuda/cuda_device.cuh) is, on the CPU. Device memory is the host's, the
// stream does everything at once, and a linear is the definition's loop in place of cuBLASLt.

#ifndef QUIRE_TESTS_KERNELS_CUDA_EMULATED_DEVICE_H_
#define QUIRE_TESTS_KERNELS_CUDA_EMULATED_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cpu/host_memory.h"
#include "kernels/cuda/device_info.h"
#include "kernels/linear/impl.h"
#include "tests/kernels/cuda/emulation.h"

namespace quire::cuda {

class EmulatedDevice {
 public:
  explicit EmulatedDevice(const EmulationOptions& options = {}) : grid_(options) {}

  static constexpr int32_t kNumSms = 3;

  const DeviceInfo& info() const { return info_; }
  absl::Status status() const { return status_; }
  absl::StatusOr<Buffer> Allocate(size_t bytes) { return AllocateHostMemory(bytes); }
  absl::StatusOr<Buffer> AllocatePinned(size_t bytes) { return AllocateHostMemory(bytes); }
  void CopyToDevice(void* to, const void* from, size_t bytes) { Copy(to, from, bytes); }
  void CopyToHost(void* to, const void* from, size_t bytes) { Copy(to, from, bytes); }
  void CopyOnDevice(void* to, const void* from, size_t bytes) { Copy(to, from, bytes); }
  void Clear(void* to, size_t bytes) {
    if (status_.ok()) std::memset(to, 0, bytes);
  }
  absl::Status Synchronize() { return status_; }

  // As if the device failed now.
  void Fail(absl::Status status) { status_ = std::move(status); }

  static size_t LinearWorkspaceBytes() { return 64; }
  void Linear(const LinearArgs& args, void* workspace) {
    if (status_.ok()) RefLinear(args);
  }

  // CTAs of a kernel that the device holds at once: few, so that small problems are split and queued as large ones are.
  template <typename Kernel>
  int64_t MaxCtas(size_t shared_bytes) {
    return int64_t{kNumSms} * Kernel::kMinCtas;
  }

  template <typename Kernel>
  void Run(int64_t num_ctas, size_t shared_bytes, const typename Kernel::Params& params) {
    if (!status_.ok()) return;
    grid_.Run(static_cast<int>(num_ctas), Kernel::kThreads, shared_bytes,
              [&](const EmulatedThread& thread) { Kernel::Run(thread, params); });
  }

 private:
  void Copy(void* to, const void* from, size_t bytes) {
    if (bytes > 0 && status_.ok()) std::memcpy(to, from, bytes);
  }

  DeviceInfo info_{.name = "emulation",
                   .major = 9,
                   .minor = 0,
                   .num_sms = kNumSms,
                   .max_shared_bytes = size_t{227} << 10,
                   .total_bytes = uint64_t{1} << 40,
                   .free_bytes = uint64_t{1} << 40};
  absl::Status status_;
  EmulatedGrid grid_;
};

}  // namespace quire::cuda

#endif  // QUIRE_TESTS_KERNELS_CUDA_EMULATED_DEVICE_H_
