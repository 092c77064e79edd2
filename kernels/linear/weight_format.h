// How the elements of a weight matrix are stored: as numbers of a DType, or quantised in blocks along the row; and
// where matrices come from when a backend packs them.
//
// Quantised, a row is ceil(k / block) blocks of `block` elements that share their scales. The layouts are those of GGUF
// (llama.cpp's) and of gpt-oss; kernels/linear/blocks.h says what number each code stands for.

#ifndef QUIRE_KERNELS_LINEAR_WEIGHT_FORMAT_H_
#define QUIRE_KERNELS_LINEAR_WEIGHT_FORMAT_H_

#include <cstdint>
#include <functional>
#include <string_view>

#include "kernels/dtype.h"
#include "kernels/linear/block_format.h"

namespace quire {

struct BlockInfo {
  std::string_view name;  // in lower case, as flags and status show it
  int32_t len;            // elements of a block
  int32_t bytes;          // bytes of a block as files store it
};

constexpr BlockInfo InfoOf(BlockFormat blocks) {
  switch (blocks) {
    case BlockFormat::kNone:
      break;
    case BlockFormat::kQ8_0:
      return {"q8_0", 32, 34};
    case BlockFormat::kQ4_0:
      return {"q4_0", 32, 18};
    case BlockFormat::kQ4_1:
      return {"q4_1", 32, 20};
    case BlockFormat::kQ5_0:
      return {"q5_0", 32, 22};
    case BlockFormat::kQ5_1:
      return {"q5_1", 32, 24};
    case BlockFormat::kQ2_K:
      return {"q2_k", 256, 84};
    case BlockFormat::kQ3_K:
      return {"q3_k", 256, 110};
    case BlockFormat::kQ4_K:
      return {"q4_k", 256, 144};
    case BlockFormat::kQ5_K:
      return {"q5_k", 256, 176};
    case BlockFormat::kQ6_K:
      return {"q6_k", 256, 210};
    case BlockFormat::kMxfp4:
      return {"mxfp4", 32, 17};
  }
  return {"", 1, 0};
}

// Of a weight: `dtype` alone, or quantised in `blocks`, and then dtype is that of the x that meets it.
struct WeightFormat {
  // NOLINTNEXTLINE(google-explicit-constructor): a DType is a format
  constexpr WeightFormat(DType dtype, BlockFormat blocks = BlockFormat::kNone) : dtype(dtype), blocks(blocks) {}

  constexpr bool quantized() const { return blocks != BlockFormat::kNone; }
  constexpr bool operator==(const WeightFormat&) const = default;

  DType dtype;
  BlockFormat blocks;
};

// Blocks of a row of `cols` elements; the last one may be partly filled.
constexpr int64_t NumBlocks(BlockFormat blocks, int64_t cols) {
  const int64_t len = InfoOf(blocks).len;
  return (cols + len - 1) / len;
}

// Bytes of a row of `cols` elements as files store it.
constexpr int64_t RowBytes(WeightFormat format, int64_t cols) {
  if (!format.quantized()) return cols * static_cast<int64_t>(DTypeBytes(format.dtype));
  return NumBlocks(format.blocks, cols) * InfoOf(format.blocks).bytes;
}

// A matrix [rows, cols] as a file stores it, or as a generator makes it, read row by row while it is packed: each row
// once, rising in each of several threads at the same time.
struct MatrixSource {
  WeightFormat format = DType::kFloat32;
  int64_t rows = 0;
  int64_t cols = 0;
  std::function<void(int64_t row, void* to)> read_row;  // writes RowBytes(format, cols) bytes
};

}  // namespace quire

#endif  // QUIRE_KERNELS_LINEAR_WEIGHT_FORMAT_H_
