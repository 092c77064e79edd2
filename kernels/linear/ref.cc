#include <cstddef>
#include <cstring>
#include <vector>

#include "kernels/linear/blocks.h"
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

void RefPackBlocks(absl::Span<const MatrixSource> parts, BlockFormat blocks, void* packed) {
  BlockRowReader reader(parts, blocks);
  const int64_t row_bytes = NumBlocks(blocks, parts[0].cols) * InfoOf(blocks).bytes;
  int64_t rows = 0;
  for (const MatrixSource& part : parts) rows += part.rows;
  for (int64_t r = 0; r < rows; ++r) reader.Read(r, static_cast<std::byte*>(packed) + r * row_bytes);
}

void RefLoadRow(const LinearWeight& weight, int64_t row, float* values) {
  const auto* data = static_cast<const std::byte*>(weight.data.data());
  BlockFormat blocks = BlockFormat::kNone;
  for (const WeightSlab& slab : weight.slabs) {
    if (row < slab.begin || row >= slab.begin + slab.rows) continue;
    blocks = slab.blocks;
    data += slab.offset;
    row -= slab.begin;
    break;
  }
  data += row * RowBytes({weight.dtype, blocks}, weight.k);
  if (blocks != BlockFormat::kNone) return DequantizeRow(blocks, data, weight.k, values);
  for (int64_t i = 0; i < weight.k; ++i) values[i] = LoadFloat(data, weight.dtype, i);
}

void RefLinear(const LinearArgs& args) {
  const LinearWeight& w = *args.weight;
  std::vector<float> x(static_cast<size_t>(args.x.rows * w.k)), row(static_cast<size_t>(w.k));
  for (int64_t r = 0; r < args.x.rows; ++r) {
    for (int64_t i = 0; i < w.k; ++i) x[r * w.k + i] = LoadFloat(args.x.data, args.x.dtype, r * args.x.row_stride + i);
  }
  for (int64_t j = 0; j < w.n; ++j) {
    RefLoadRow(w, j, row.data());
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
