// QUIRE_NEEDS_CUDA_DEVICE(): leaves a test that needs a device where there is none: skipped aloud, or, where the
// environment has QUIRE_REQUIRE_CUDA_DEVICE (deploy/gpu_check.sh sets it), failed.

#ifndef QUIRE_TESTS_KERNELS_CUDA_NEEDS_DEVICE_H_
#define QUIRE_TESTS_KERNELS_CUDA_NEEDS_DEVICE_H_

#include <gtest/gtest.h>

#include <cstdlib>

#include "kernels/backend_cuda.h"

#define QUIRE_NEEDS_CUDA_DEVICE()                                                                                 \
  do {                                                                                                            \
    if (::quire::HasCudaDevice()) break;                                                                          \
    const auto found = ::quire::CreateCudaBackend({});                                                            \
    if (std::getenv("QUIRE_REQUIRE_CUDA_DEVICE") != nullptr) FAIL() << "no device: " << found.status().message(); \
    GTEST_SKIP() << "no CUDA device: this ran emulated only";                                                     \
  } while (false)

namespace quire {

// Whether the device has wgmma. REQUIRES: a device.
inline bool DeviceHasWgmma() { return CreateCudaBackend({.prefill_attention = PrefillAttention::kWgmma}).ok(); }

}  // namespace quire

#endif  // QUIRE_TESTS_KERNELS_CUDA_NEEDS_DEVICE_H_
