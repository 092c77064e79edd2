// Tensor, a view of a matrix in device memory, and Buffer, which owns such memory.

#ifndef QUIRE_KERNELS_TENSOR_H_
#define QUIRE_KERNELS_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

#include "kernels/dtype.h"

namespace quire {

// [rows, cols] elements; the elements of a row are contiguous, rows are `row_stride` elements apart. Whatever has more
// dimensions says in its comment how they fold into cols, e.g. [num_rows, q_heads * head_dim]. Does not own anything.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;  // elements; >= cols

  static Tensor Contiguous(void* data, DType dtype, int64_t rows, int64_t cols) {
    return {data, dtype, rows, cols, cols};
  }

  template <typename T>
  T* Row(int64_t row) const {
    return static_cast<T*>(data) + row * row_stride;
  }

  // The view of rows [begin, begin + count).
  Tensor Rows(int64_t begin, int64_t count) const {
    Tensor t = *this;
    t.data = static_cast<char*>(data) + begin * row_stride * static_cast<int64_t>(DTypeBytes(dtype));
    t.rows = count;
    return t;
  }

  // The view of columns [begin, begin + count) of all rows.
  Tensor Cols(int64_t begin, int64_t count) const {
    Tensor t = *this;
    t.data = static_cast<char*>(data) + begin * static_cast<int64_t>(DTypeBytes(dtype));
    t.cols = count;
    return t;
  }
};

// Owned device bytes, given back on destruction. Move-only.
class Buffer {
 public:
  using Deleter = std::function<void(void*)>;

  Buffer() = default;
  Buffer(void* data, size_t bytes, Deleter deleter) : data_(data), bytes_(bytes), deleter_(std::move(deleter)) {}
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    if (this != &other) {
      Reset();
      data_ = std::exchange(other.data_, nullptr);
      bytes_ = std::exchange(other.bytes_, 0);
      deleter_ = std::exchange(other.deleter_, nullptr);
    }
    return *this;
  }
  ~Buffer() { Reset(); }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void Reset() {
    if (data_ != nullptr) deleter_(data_);
    data_ = nullptr;
  }

  void* data_ = nullptr;
  size_t bytes_ = 0;
  Deleter deleter_;
};

}  // namespace quire

#endif  // QUIRE_KERNELS_TENSOR_H_
