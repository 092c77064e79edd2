#include "engine/stored_tensor.h"

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "engine/mapped_file.h"
#include "kernels/linear/blocks.h"

namespace quire {
namespace {

// Bytes of a mapped file that may be in memory behind the row that is read: enough to give back many pages at a time.
constexpr int64_t kReleaseBytes = int64_t{4} << 20;

// Row `row` of the model in the order of the file. `half` is half of a head's rows.
int64_t InterleavedRow(int64_t row, int64_t half) {
  const int64_t head = row / (2 * half), in_head = row % (2 * half);
  return head * 2 * half + in_head % half * 2 + in_head / half;
}

// The bias of such a matrix, whose elements are permuted as its rows are.
MatrixSource InterleavedVector(const StoredTensor& tensor) {
  const int64_t size = tensor.shape[0], half = size / tensor.interleaved_heads / 2;
  const auto bytes = static_cast<int64_t>(DTypeBytes(tensor.dtype));
  const auto read_row = [=, data = tensor.data](int64_t row, void* to) {
    for (int64_t i = 0; i < size; ++i)
      std::memcpy(static_cast<std::byte*>(to) + i * bytes, data + InterleavedRow(i, half) * bytes, bytes);
  };
  return {.format = tensor.dtype, .rows = 1, .cols = size, .read_row = read_row};
}

// Sign, four bits of exponent with a bias of 7, three of mantissa; no infinity, NaN where all bits are set.
float FromE4M3(uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                  : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  if ((bits & 0x7f) == 0x7f) magnitude = std::numeric_limits<float>::quiet_NaN();
  return (bits & 0x80) != 0 ? -magnitude : magnitude;
}

std::array<float, 256> E4M3Table() {
  std::array<float, 256> table;
  for (int bits = 0; bits < 256; ++bits) table[bits] = FromE4M3(static_cast<uint8_t>(bits));
  return table;
}

}  // namespace

float Fp8Value(const StoredTensor& tensor, int64_t index) {
  static const std::array<float, 256> kTable = E4M3Table();
  const Fp8Scales& scales = *tensor.fp8;
  const int64_t cols = tensor.shape.empty() ? 1 : tensor.shape.back(), row = index / cols, col = index % cols;
  const int64_t block = row / Fp8Scales::kBlock * scales.block_cols + col / Fp8Scales::kBlock;
  return kTable[std::to_integer<uint8_t>(tensor.data[index])] * scales.values[scales.block_cols == 0 ? 0 : block];
}

MatrixSource RowsOf(const StoredTensor& tensor, int64_t rows, int64_t cols, std::function<int64_t(int64_t row)> index) {
  if (tensor.interleaved_heads > 0 && tensor.shape.size() == 1) return InterleavedVector(tensor);
  const int64_t row_bytes = RowBytes(tensor.format(), cols);
  const auto begin_of = [&tensor, index = std::move(index)](int64_t row) {  // in bytes
    const int64_t at = index(row), tensor_cols = tensor.shape.back();
    int64_t tensor_row = at / tensor_cols;
    if (tensor.interleaved_heads > 0)
      tensor_row = InterleavedRow(tensor_row, tensor.shape[0] / tensor.interleaved_heads / 2);
    return tensor_row * RowBytes(tensor.format(), tensor_cols) + RowBytes(tensor.format(), at % tensor_cols);
  };
  auto read_row = [&tensor, begin_of, rows, row_bytes](int64_t row, void* to) {
    const int64_t at = begin_of(row);
    std::memcpy(to, tensor.data + at, static_cast<size_t>(row_bytes));
    const bool is_last = row + 1 == rows;
    if (tensor.interleaved_heads > 0) {  // rows come in another order than they lie: they go with the last one
      if (is_last) ReleasePages(tensor.data, tensor.data + tensor.bytes);
      return;
    }
    const int64_t next = is_last ? at + row_bytes : begin_of(row + 1);
    if (is_last || next / kReleaseBytes != at / kReleaseBytes)
      ReleasePages(tensor.data + at / kReleaseBytes * kReleaseBytes, tensor.data + next);
  };
  if (tensor.addend == 0) {
    return {.format = tensor.format(), .rows = rows, .cols = cols, .read_row = std::move(read_row)};
  }
  auto add = [&tensor, read_row, row_bytes, cols](int64_t row, void* to) {
    std::vector<std::byte> stored(static_cast<size_t>(row_bytes));
    read_row(row, stored.data());
    for (int64_t i = 0; i < cols; ++i)
      static_cast<float*>(to)[i] = LoadFloat(stored.data(), tensor.dtype, i) + tensor.addend;
  };
  return {.format = DType::kFloat32, .rows = rows, .cols = cols, .read_row = std::move(add)};
}

MatrixSource AsNumbers(MatrixSource source) {
  if (!source.format.quantized()) return source;
  const int64_t rows = source.rows, cols = source.cols;
  auto read_row = [source = std::move(source)](int64_t row, void* to) {
    std::vector<std::byte> stored(static_cast<size_t>(RowBytes(source.format, source.cols)));
    source.read_row(row, stored.data());
    DequantizeRow(source.format.blocks, stored.data(), source.cols, static_cast<float*>(to));
  };
  return {.format = DType::kFloat32, .rows = rows, .cols = cols, .read_row = std::move(read_row)};
}

}  // namespace quire
