#include <vector>

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
  std::vector<float> x(static_cast<size_t>(args.x.rows * w.k)), row(static_cast<size_t>(w.k));
  for (int64_t r = 0; r < args.x.rows; ++r) {
    for (int64_t i = 0; i < w.k; ++i) x[r * w.k + i] = LoadFloat(args.x.data, args.x.dtype, r * args.x.row_stride + i);
  }
  for (int64_t j = 0; j < w.n; ++j) {
    for (int64_t i = 0; i < w.k; ++i) row[i] = LoadFloat(w.data.data(), w.dtype, j * w.k + i);
    for (int64_t r = 0; r < args.x.rows; ++r) {
      float sum = 0;
      for (int64_t i = 0; i < w.k; ++i) sum += x[r * w.k + i] * row[i];
      if (args.bias != nullptr) sum += args.bias[j];
      float& y = args.y.Row<float>(r)[j];
      y = args.accumulate ? y + sum : sum;
    }
  }
}

}  // namespace quire
