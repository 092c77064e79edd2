// What the host side of CUDA operations shares: from an element type to a kernel's template argument.

#ifndef QUIRE_KERNELS_CUDA_LAUNCH_H_
#define QUIRE_KERNELS_CUDA_LAUNCH_H_

#include "kernels/dtype.h"

namespace quire::cuda {

// Calls `function` with a value of the type that `dtype` stores.
template <typename Function>
void WithElement(DType dtype, const Function& function) {
  switch (dtype) {
    case DType::kFloat32:
      return function(float{});
    case DType::kBFloat16:
      return function(BFloat16{});
    case DType::kFloat16:
      return function(Float16{});
  }
}

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_CUDA_LAUNCH_H_
