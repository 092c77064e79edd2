// RopeKvWrite on CUDA: all pointers are the device's. Device is CudaDevice, or the emulation's in tests.

#ifndef QUIRE_KERNELS_ROPE_CUDA_H_
#define QUIRE_KERNELS_ROPE_CUDA_H_

#include "kernels/rope/rope.h"

namespace quire::cuda {

template <typename Device>
void RopeKvWrite(const RopeKvWriteArgs& args, Device& device);

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_ROPE_CUDA_H_
