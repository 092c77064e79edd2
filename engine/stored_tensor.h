// StoredTensor: a tensor where it lies in a mapped file, and its rows as a backend packs them.

#ifndef QUIRE_ENGINE_STORED_TENSOR_H_
#define QUIRE_ENGINE_STORED_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/linear/weight_format.h"

namespace quire {

// What multiplies the elements of an FP8 matrix: one number for all, or one for each square of kBlock.
struct Fp8Scales {
  static constexpr int64_t kBlock = 128;

  std::vector<float> values = {1};  // [1], or [ceil(rows / kBlock)][block_cols]
  int64_t block_cols = 0;           // 0: one for all
};

struct StoredTensor {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;  // [product(shape)] elements, of any alignment
  uint64_t bytes = 0;
  BlockFormat blocks = BlockFormat::kNone;  // how rows are quantised; dtype then says nothing
  // Not 0: the rows of a matrix are those of so many heads, and in a head the file alternates rows of its first and of
  // its second half: row 2 i + h of the file is row h * half + i.
  int64_t interleaved_heads = 0;
  float addend = 0;  // to be added to every element
  // Not null: elements are bytes of FP8 E4M3 (OCP 8-bit Floating Point, section 5), read as float32; dtype says
  // nothing.
  std::shared_ptr<const Fp8Scales> fp8 = nullptr;

  // Elements as they are stored; with an addend they are read as float32.
  WeightFormat format() const { return {dtype, blocks}; }
};

// Element `index` of an FP8 tensor, scaled.
float Fp8Value(const StoredTensor& tensor, int64_t index);

// Rows of `cols` elements of the tensor, row `row` from element index(row) on in row-major order, as a matrix. Pages of
// the file are given back behind the row that is read: a model must not be in memory twice. REQUIRES: rows begin at
// whole blocks; `tensor` outlives the source and the file stays mapped.
MatrixSource RowsOf(const StoredTensor& tensor, int64_t rows, int64_t cols, std::function<int64_t(int64_t row)> index);

// The same matrix in float32 where it is quantised, else as it is.
MatrixSource AsNumbers(MatrixSource source);

}  // namespace quire

#endif  // QUIRE_ENGINE_STORED_TENSOR_H_
