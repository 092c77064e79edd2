#include <vector>

#include "kernels/head_linear/impl.h"
#include "kernels/linear/impl.h"

namespace quire {

void RefHeadLinear(const HeadLinearArgs& args) {
  for (int32_t head = 0; head < args.num_heads; ++head) {
    const LinearWeight& w = args.weights[head];
    const int64_t rows = args.x.rows;
    const int64_t x_begin = head * args.x_head_stride, y_begin = head * args.y_head_stride;
    std::vector<char> rounded(static_cast<size_t>(rows * w.k) * DTypeBytes(w.dtype));
    std::vector<float> product(static_cast<size_t>(rows * w.n));
    for (int64_t r = 0; r < rows; ++r) {
      const float* x = args.x.Row<float>(r) + x_begin;
      for (int64_t i = 0; i < w.k; ++i) StoreFloat(rounded.data(), w.dtype, r * w.k + i, x[i]);
    }
    RefLinear({.x = Tensor::Contiguous(rounded.data(), w.dtype, rows, w.k),
               .weight = &w,
               .bias = nullptr,
               .accumulate = false,
               .y = Tensor::Contiguous(product.data(), DType::kFloat32, rows, w.n)});
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t j = 0; j < w.n; ++j) {
        StoreFloat(args.y.data, args.y.dtype, r * args.y.row_stride + y_begin + j, product[r * w.n + j]);
      }
    }
  }
}

}  // namespace quire
