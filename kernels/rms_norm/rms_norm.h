// RMSNorm (Zhang and Sennrich 2019, eq. 4): y[r, i] = x[r, i] / sqrt(mean_j(x[r, j]^2) + epsilon) * weight[i].
//
// With `heads` > 1 a row is so many vectors side by side and each is normed by itself with the same weight (the QK norm
// of Qwen3 and Gemma 3). With `accumulate` the normed row is added to y, which then is float32 (the norm behind a block
// of Gemma 2, and the residual stream).
//
// Sums are float32 in an order that depends on the normed width alone; the result is rounded once, to y's type. y may
// be x, if `rows` is nullptr. A norm whose weight counts from one, (1 + w), has the one added when it is loaded.
// Example: x = [3, 4], weight = [1, 2], epsilon = 0: mean square 12.5, y = [0.84853, 2.26274].

#ifndef QUIRE_KERNELS_RMS_NORM_RMS_NORM_H_
#define QUIRE_KERNELS_RMS_NORM_RMS_NORM_H_

#include <cstdint>

#include "kernels/tensor.h"

namespace quire {

struct RmsNormArgs {
  Tensor x;                 // float32 [num_rows, heads * hidden]
  const float* weight;      // [hidden]
  float epsilon;            // > 0
  const int32_t* rows;      // nullptr: y[r] is of x[r]; else [y.rows]: y[r] is of x[rows[r]] (what feeds the head)
  Tensor y;                 // out: any dtype, [num_rows or as many as `rows` names, heads * hidden]
  int32_t heads = 1;        // >= 1
  bool accumulate = false;  // y += instead of y =
};

}  // namespace quire

#endif  // QUIRE_KERNELS_RMS_NORM_RMS_NORM_H_
