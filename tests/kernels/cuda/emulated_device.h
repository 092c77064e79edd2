// EmulatedDevice: what CudaDevice (kernels/cuda/cuda_device.cuh) is, on the CPU. Device memory is the host's, the
// stream does everything at once, and a linear is the definition's loop in place of cuBLASLt.

#ifndef QUIRE_TESTS_KERNELS_CUDA_EMULATED_DEVICE_H_
#define QUIRE_TESTS_KERNELS_CUDA_EMULATED_DEVICE_H_

#include <cstddef>
#include <cstdint>

#include "tests/kernels/cuda/emulation.h"

namespace quire::cuda {

class EmulatedDevice {
 public:
  explicit EmulatedDevice(const EmulationOptions& options = {}) : grid_(options) {}

  static constexpr int32_t kNumSms = 3;

  // CTAs of a kernel that the device holds at once: few, so that small problems are split and queued as large ones are.
  template <typename Kernel>
  int64_t MaxCtas(size_t shared_bytes) {
    return int64_t{kNumSms} * Kernel::kMinCtas;
  }

  template <typename Kernel>
  void Run(int64_t num_ctas, size_t shared_bytes, const typename Kernel::Params& params) {
    grid_.Run(static_cast<int>(num_ctas), Kernel::kThreads, shared_bytes,
              [&](const EmulatedThread& thread) { Kernel::Run(thread, params); });
  }

 private:
  EmulatedGrid grid_;
};

}  // namespace quire::cuda

#endif  // QUIRE_TESTS_KERNELS_CUDA_EMULATED_DEVICE_H_
