// LayerNorm on CUDA: all pointers are the device's. Device is CudaDevice, or the emulation's in tests.

#ifndef QUIRE_KERNELS_LAYER_NORM_CUDA_H_
#define QUIRE_KERNELS_LAYER_NORM_CUDA_H_

#include "kernels/layer_norm/layer_norm.h"

namespace quire::cuda {

template <typename Device>
void LayerNorm(const LayerNormArgs& args, Device& device);

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_LAYER_NORM_CUDA_H_
