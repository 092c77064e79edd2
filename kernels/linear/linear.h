// Linear: y = x W^T + bias, or y += x W^T + bias.
//
//   y[r, j] = sum_k float(x[r, k]) * float(W[j, k]) + bias[j]       accumulated in float32
//
// A quantised W is multiplied as the numbers that its codes stand for (kernels/linear/blocks.h) by `ref`. `cpu` takes x
// as int8, in blocks of 32 along k with a scale for each row and block, q = round(x / s), s = max |x| / 127, so that
//
//   |y - y_ref| <= sum over blocks b of s_b / 2 * sum_{k in b} |W[j, k]|, and float32 rounding.
//
// The order of summation over k is a function of W's (n, k) and the instruction set alone: the same bits for every
// number of rows and of workers (ARCHITECTURE law 5, "company is invisible"). x has W's dtype. Example: x = [1, 2], W =
// [[1, 0], [3, 4], [0, -1]], no bias: y = [1, 11, -2].

#ifndef QUIRE_KERNELS_LINEAR_LINEAR_H_
#define QUIRE_KERNELS_LINEAR_LINEAR_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/linear/weight_format.h"
#include "kernels/tensor.h"

namespace quire {

// Rows [begin, begin + rows) of a weight, packed together.
struct WeightSlab {
  int64_t begin = 0;
  int64_t rows = 0;
  BlockFormat blocks = BlockFormat::kNone;
  size_t offset = 0;  // bytes from the weight's data on
};

// A weight matrix W[n, k] as its backend likes it (`Backend::PackLinear` makes it; its layout is the backend's secret).
struct LinearWeight {
  int64_t n = 0;                  // rows of W: outputs
  int64_t k = 0;                  // columns of W: inputs
  DType dtype = DType::kFloat32;  // of x, and of W's elements unless they are quantised
  Buffer data;
  // Where any row is quantised: the stack of parts, each in its own format; else empty.
  std::vector<WeightSlab> slabs = {};
};

// A matrix in host memory, which must outlive the source, as PackLinear takes it.
MatrixSource SourceOf(const Tensor& tensor);

struct LinearArgs {
  Tensor x;                    // weight->dtype [num_rows, k]
  const LinearWeight* weight;  // [n, k]
  const float* bias;           // [n], or nullptr
  bool accumulate;             // add to y instead of overwriting it (the residual stream)
  Tensor y;                    // out: float32 [num_rows, n]
};

}  // namespace quire

#endif  // QUIRE_KERNELS_LINEAR_LINEAR_H_
