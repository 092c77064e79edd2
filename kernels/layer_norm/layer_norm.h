// LayerNorm (Ba, Kiros and Hinton 2016): with m the mean of the row and s^2 the mean of (x - m)^2,
//
//   y[r, i] = (x[r, i] - m) / sqrt(s^2 + epsilon) * weight[i] + bias[i]
//
// Sums are float32 in an order that depends on cols alone, the variance in a second pass; rounded once, to y's type. y
// may be x, if `rows` is nullptr. Example: x = [1, 3], weight [1, 2], bias [0, 1], epsilon = 0: m = 2, s = 1, y = [-1,
// 3].

#ifndef QUIRE_KERNELS_LAYER_NORM_LAYER_NORM_H_
#define QUIRE_KERNELS_LAYER_NORM_LAYER_NORM_H_

#include <cstdint>

#include "kernels/tensor.h"

namespace quire {

struct LayerNormArgs {
  Tensor x;             // float32 [num_rows, hidden]
  const float* weight;  // [hidden], or nullptr: ones
  const float* bias;    // [hidden], or nullptr: zeroes
  float epsilon;        // > 0
  const int32_t* rows;  // nullptr: y[r] is of x[r]; else [y.rows]: y[r] is of x[rows[r]] (gathers what feeds the head)
  Tensor y;             // out: any dtype, [num_rows or as many as `rows` names, hidden]
};

}  // namespace quire

#endif  // QUIRE_KERNELS_LAYER_NORM_LAYER_NORM_H_
