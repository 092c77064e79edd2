// SwiGLU (Shazeer 2020, "GLU Variants", eq. 6, Swish with beta 1): y[r, i] = silu(g[r, i]) * u[r, i], silu(a) = a / (1
// + e^-a).
//
// Example: g = [0, 1], u = [5, 2]: y = [0, 1.46212].

#ifndef QUIRE_KERNELS_SWIGLU_SWIGLU_H_
#define QUIRE_KERNELS_SWIGLU_SWIGLU_H_

#include "kernels/tensor.h"

namespace quire {

struct SwiGluArgs {
  Tensor gate_up;  // float32 [num_rows, 2 * intermediate]: g in the first half of the columns, u in the second
  Tensor y;        // out: any dtype [num_rows, intermediate]
};

}  // namespace quire

#endif  // QUIRE_KERNELS_SWIGLU_SWIGLU_H_
