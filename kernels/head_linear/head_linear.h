// HeadLinear: a small matrix product for each head, y[r, h, :] = W[h] x[r, h, :].
//
//   y[r, h, j] = sum_k float(W[h][j, k]) * x[r, h, k]        h < num_heads
//
// MLA's absorbed projections (DeepSeek-V2, section 2.1.2): W[h] = transposed W_uk of head h turns a query's part
// without position into one against the latents, W[h] = W_uv of head h turns the attended latent into values. x is
// rounded to the weights' dtype before it is multiplied; the order of summation is that of Linear: the same bits for
// every number of rows and workers. Example: two heads, W = {[[1, 2]], [[3, 4]]}, x = [1, 1, 1, 2]: y = [3, 11].

#ifndef QUIRE_KERNELS_HEAD_LINEAR_HEAD_LINEAR_H_
#define QUIRE_KERNELS_HEAD_LINEAR_HEAD_LINEAR_H_

#include <cstdint>

#include "kernels/linear/linear.h"
#include "kernels/tensor.h"

namespace quire {

struct HeadLinearArgs {
  Tensor x;                     // float32 [num_rows, at least (num_heads - 1) * x_head_stride + k]
  int64_t x_head_stride;        // elements from a head's x to the next one's, >= k
  const LinearWeight* weights;  // [num_heads], all of one shape [n, k] and dtype, not quantised
  int32_t num_heads;
  Tensor y;               // out: any dtype [num_rows, at least (num_heads - 1) * y_head_stride + n]
  int64_t y_head_stride;  // >= n; what lies between the heads is left as it is
};

}  // namespace quire

#endif  // QUIRE_KERNELS_HEAD_LINEAR_HEAD_LINEAR_H_
