// StoredTensor: a tensor where it lies in a mapped file, and its rows as a backend packs them.

#ifndef QUIRE_ENGINE_STORED_TENSOR_H_
#define QUIRE_ENGINE_STORED_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/linear/weight_format.h"

namespace quire {

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

  // Elements as they are stored; with an addend they are read as float32.
  WeightFormat format() const { return {dtype, blocks}; }
};

// Rows of `cols` elements of the tensor, row `row` from element index(row) on in row-major order, as a matrix. Pages of
// the file are given back behind the row that is read: a model must not be in memory twice. REQUIRES: rows begin at
// whole blocks; `tensor` outlives the source and the file stays mapped.
MatrixSource RowsOf(const StoredTensor& tensor, int64_t rows, int64_t cols, std::function<int64_t(int64_t row)> index);

// The same matrix in float32 where it is quantised, else as it is.
MatrixSource AsNumbers(MatrixSource source);

}  // namespace quire

#endif  // QUIRE_ENGINE_STORED_TENSOR_H_
