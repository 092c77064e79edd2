// RMSNorm (Zhang and Sennrich 2019, eq. 4): y[r, i] = x[r, i] / sqrt(mean_j(x[r, j]^2) + epsilon) * weight[i].
//
// Sums are float32 in an order that depends on cols alone; the result is rounded once, to y's type.
// Example: x = [3, 4], weight = [1, 2], epsilon = 0: mean square 12.5, y = [0.84853, 2.26274].

#ifndef QUIRE_KERNELS_RMS_NORM_RMS_NORM_H_
#define QUIRE_KERNELS_RMS_NORM_RMS_NORM_H_

#include "kernels/tensor.h"

namespace quire {

struct RmsNormArgs {
  Tensor x;             // float32 [num_rows, hidden]
  const float* weight;  // [hidden]
  float epsilon;        // > 0
  const int32_t* rows;  // nullptr: y[r] is of x[r]; else [y.rows]: y[r] is of x[rows[r]] (gathers what feeds the head)
  Tensor y;             // out: any dtype, [num_rows or as many as `rows` names, hidden]
};

}  // namespace quire

#endif  // QUIRE_KERNELS_RMS_NORM_RMS_NORM_H_
