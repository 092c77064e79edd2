// One row of RMSNorm for whatever Vector is: included by the kernels_*.cc alone.

#ifndef QUIRE_KERNELS_RMS_NORM_CPU_ROW_H_
#define QUIRE_KERNELS_RMS_NORM_CPU_ROW_H_

#include <cstdint>

#include "kernels/cpu/row.h"

namespace quire {
namespace {

// The squares are summed in four vectors, each taking every fourth, then one after another: an order that cols alone
// decides.
// y = normed, or y += normed.
template <class Out, bool kAdd = false>
void RmsNormRow(const float* x, const float* weight, float epsilon, int64_t cols, void* y) {
  constexpr int64_t kWidth = Vector::kWidth;
  Vector::F sums[4] = {Vector::Set1(0), Vector::Set1(0), Vector::Set1(0), Vector::Set1(0)};
  int64_t i = 0;
  for (; i + 4 * kWidth <= cols; i += 4 * kWidth) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const Vector::F value = Vector::Load(x + i + v * kWidth);
      sums[v] = Vector::Fma(value, value, sums[v]);
    }
  }
  for (; i < cols; i += kWidth) {
    const Vector::F value = LoadUpTo(x + i, cols - i);
    sums[0] = Vector::Fma(value, value, sums[0]);
  }
  const float sum = Vector::Sum(Vector::Add(Vector::Add(sums[0], sums[1]), Vector::Add(sums[2], sums[3])));
  const Vector::F scale = Vector::Set1(1.0f / __builtin_sqrtf(sum / static_cast<float>(cols) + epsilon));
  Out* out = static_cast<Out*>(y);
  for (i = 0; i < cols; i += kWidth) {
    const Vector::F normal = Vector::Mul(LoadUpTo(x + i, cols - i), scale);
    Vector::F value = Vector::Mul(normal, LoadUpTo(weight + i, cols - i));
    if constexpr (kAdd) value = Vector::Add(LoadUpTo(out + i, cols - i), value);
    StoreUpTo(out + i, cols - i, value);
  }
}

}  // namespace
}  // namespace quire

#endif  // QUIRE_KERNELS_RMS_NORM_CPU_ROW_H_
