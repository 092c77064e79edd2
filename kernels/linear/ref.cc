#include "kernels/linear/impl.h"

namespace quire {

void RefPackLinear(absl::Span<const Tensor> parts, DType dtype, void* packed) {
  int64_t row = 0;
  for (const Tensor& part : parts) {
    for (int64_t r = 0; r < part.rows; ++r, ++row) {
      for (int64_t i = 0; i < part.cols; ++i) {
        StoreFloat(packed, dtype, row * part.cols + i, LoadFloat(part.data, part.dtype, r * part.row_stride + i));
      }
    }
  }
}

void RefLinear(const LinearArgs& args) {
  const LinearWeight& w = *args.weight;
  for (int64_t r = 0; r < args.x.rows; ++r) {
    for (int64_t j = 0; j < w.n; ++j) {
      float sum = 0;
      for (int64_t i = 0; i < w.k; ++i) {
        sum += LoadFloat(args.x.data, args.x.dtype, r * args.x.row_stride + i) *
               LoadFloat(w.data.data(), w.dtype, j * w.k + i);
      }
      if (args.bias != nullptr) sum += args.bias[j];
      float* const y = args.y.Row<float>(r) + j;
      *y = args.accumulate ? *y + sum : sum;
    }
  }
}

}  // namespace quire
