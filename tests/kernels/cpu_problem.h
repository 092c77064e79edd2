// What the tests of the CPU kernels share: numbers, tensors that own their memory, and the instruction sets to run.

#ifndef QUIRE_TESTS_KERNELS_CPU_PROBLEM_H_
#define QUIRE_TESTS_KERNELS_CPU_PROBLEM_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/dtype.h"
#include "kernels/tensor.h"

namespace quire {

// A matrix whose rows are `padding` elements further apart than they are long. Every element, padding included, starts
// as NaN.
class Matrix {
 public:
  Matrix(DType dtype, int64_t rows, int64_t cols, int64_t padding = 0)
      : bytes_(static_cast<size_t>(rows * (cols + padding)) * DTypeBytes(dtype)) {
    tensor_ = {bytes_.data(), dtype, rows, cols, cols + padding};
    for (int64_t i = 0; i < rows * (cols + padding); ++i) {
      StoreFloat(bytes_.data(), dtype, i, std::numeric_limits<float>::quiet_NaN());
    }
  }
  Matrix(const Matrix&) = delete;

  const Tensor& tensor() const { return tensor_; }
  float At(int64_t row, int64_t col) const {
    return LoadFloat(tensor_.data, tensor_.dtype, row * tensor_.row_stride + col);
  }
  void Set(int64_t row, int64_t col, float value) {
    StoreFloat(tensor_.data, tensor_.dtype, row * tensor_.row_stride + col, value);
  }

  // Numbers of [-scale, scale).
  Matrix& FillRandom(uint32_t seed, float scale = 1.0f) {
    std::minstd_rand random(seed + 1);
    for (int64_t r = 0; r < tensor_.rows; ++r) {
      for (int64_t c = 0; c < tensor_.cols; ++c)
        Set(r, c, (static_cast<float>(random() % 65536) / 32768.0f - 1.0f) * scale);
    }
    return *this;
  }
  Matrix& Fill(const std::vector<std::vector<float>>& values) {
    for (size_t r = 0; r < values.size(); ++r) {
      for (size_t c = 0; c < values[r].size(); ++c) Set(static_cast<int64_t>(r), static_cast<int64_t>(c), values[r][c]);
    }
    return *this;
  }
  std::vector<float> Row(int64_t row) const {
    std::vector<float> values;
    for (int64_t c = 0; c < tensor_.cols; ++c) values.push_back(At(row, c));
    return values;
  }
  // Every bit, the padding's too.
  friend bool SameBits(const Matrix& a, const Matrix& b) { return a.bytes_ == b.bytes_; }

 private:
  std::vector<char> bytes_;
  Tensor tensor_;
};

inline std::unique_ptr<ThreadPool> MakePool(int num_threads) { return *ThreadPool::Create({num_threads, {}}); }

constexpr DType kAllDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};

// Tests over all instruction sets that this machine runs.
class EachIsa : public testing::TestWithParam<CpuIsa> {
 protected:
  const CpuKernels& kernels() const { return KernelsFor(GetParam()); }
};
inline std::string IsaTestName(const testing::TestParamInfo<CpuIsa>& info) {
  return std::string(CpuIsaName(info.param));
}

}  // namespace quire

#endif  // QUIRE_TESTS_KERNELS_CPU_PROBLEM_H_
