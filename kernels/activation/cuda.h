// Activation on CUDA: all pointers are the device's. Device is CudaDevice, or the emulation's in tests.

#ifndef QUIRE_KERNELS_ACTIVATION_CUDA_H_
#define QUIRE_KERNELS_ACTIVATION_CUDA_H_

#include "kernels/activation/activation.h"

namespace quire::cuda {

template <typename Device>
void Activation(const ActivationArgs& args, Device& device);

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_ACTIVATION_CUDA_H_
