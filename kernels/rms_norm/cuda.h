// RmsNorm on CUDA: all pointers are the device's. Device is CudaDevice, or the emulation's in tests.

#ifndef QUIRE_KERNELS_RMS_NORM_CUDA_H_
#define QUIRE_KERNELS_RMS_NORM_CUDA_H_

#include "kernels/rms_norm/rms_norm.h"

namespace quire::cuda {

template <typename Device>
void RmsNorm(const RmsNormArgs& args, Device& device);

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_RMS_NORM_CUDA_H_
