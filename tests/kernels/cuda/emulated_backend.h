// The whole CUDA backend on the emulated device.

#ifndef QUIRE_TESTS_KERNELS_CUDA_EMULATED_BACKEND_H_
#define QUIRE_TESTS_KERNELS_CUDA_EMULATED_BACKEND_H_

#include <memory>

#include "kernels/backend.h"
#include "tests/kernels/cuda/emulated_device.h"

namespace quire {

// `device`, if given, is set to the backend's, which lives as long.
std::unique_ptr<Backend> MakeEmulatedCudaBackend(const cuda::EmulationOptions& options, bool deterministic,
                                                 cuda::EmulatedDevice** device = nullptr,
                                                 bool prefills_by_wgmma = false);

}  // namespace quire

#endif  // QUIRE_TESTS_KERNELS_CUDA_EMULATED_BACKEND_H_
