// GatedActivation on CUDA: all pointers are the device's. Device is CudaDevice, or the emulation's in tests.

#ifndef QUIRE_KERNELS_GATED_ACTIVATION_CUDA_H_
#define QUIRE_KERNELS_GATED_ACTIVATION_CUDA_H_

#include "kernels/gated_activation/gated_activation.h"

namespace quire::cuda {

template <typename Device>
void GatedActivation(const GatedActivationArgs& args, Device& device);

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_GATED_ACTIVATION_CUDA_H_
