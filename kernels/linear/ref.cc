#include <cstddef>
#include <cstring>
#include <vector>

#include "kernels/linear/impl.h"

namespace quire {

MatrixSource SourceOf(const Tensor& tensor) {
  const size_t bytes = static_cast<size_t>(tensor.cols) * DTypeBytes(tensor.dtype);
  return {.format = tensor.dtype, .rows = tensor.rows, .cols = tensor.cols, .read_row = [=](int64_t row, void* to) {
            std::memcpy(to, tensor.Rows(row, 1).data, bytes);
          }};
}

void RefPackLinear(absl::Span<const MatrixSource> parts, WeightFormat format, void* packed) {
  int64_t begin = 0;
  for (const MatrixSource& part : parts) {
    std::vector<std::byte> row(static_cast<size_t>(RowBytes(part.format, part.cols)));
    for (int64_t r = 0; r < part.rows; ++r, begin += part.cols) {
      part.read_row(r, row.data());
      for (int64_t i = 0; i < part.cols; ++i)
        StoreFloat(packed, format.dtype, begin + i, LoadFloat(row.data(), part.format.dtype, i));
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
