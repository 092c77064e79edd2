// One row of LayerNorm for whatever Vector is: included by the kernels_*.cc alone.

#ifndef QUIRE_KERNELS_LAYER_NORM_CPU_ROW_H_
#define QUIRE_KERNELS_LAYER_NORM_CPU_ROW_H_

#include <cstdint>

#include "kernels/cpu/row.h"

namespace quire {
namespace {

// The sum of term(x) over a row, in four vectors, each taking every fourth, then one after another: an order that cols
// alone decides. term(x) is taken of whole vectors only; the end of the row is added up one by one.
template <class Term>
inline float RowSum(const float* x, int64_t cols, const Term& term) {
  constexpr int64_t kWidth = Vector::kWidth;
  Vector::F sums[4] = {Vector::Set1(0), Vector::Set1(0), Vector::Set1(0), Vector::Set1(0)};
  int64_t i = 0;
  for (; i + 4 * kWidth <= cols; i += 4 * kWidth) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sums[v] = term(Vector::Load(x + i + v * kWidth), sums[v]);
  }
  for (; i + kWidth <= cols; i += kWidth) sums[0] = term(Vector::Load(x + i), sums[0]);
  float sum = Vector::Sum(Vector::Add(Vector::Add(sums[0], sums[1]), Vector::Add(sums[2], sums[3])));
  for (; i < cols; ++i) {
    float lanes[kWidth];
    Vector::Store(lanes, term(Vector::Set1(x[i]), Vector::Set1(sum)));
    sum = lanes[0];
  }
  return sum;
}

template <class Out>
void LayerNormRow(const float* x, const float* weight, const float* bias, float epsilon, int64_t cols, void* y) {
  using F = Vector::F;
  const float count = static_cast<float>(cols);
  const F mean = Vector::Set1(RowSum(x, cols, [](F x, F sum) { return Vector::Add(x, sum); }) / count);
  const float squares = RowSum(x, cols, [mean](F x, F sum) {
    const F distance = Vector::Sub(x, mean);
    return Vector::Fma(distance, distance, sum);
  });
  const F scale = Vector::Set1(1.0f / __builtin_sqrtf(squares / count + epsilon));
  Out* out = static_cast<Out*>(y);
  for (int64_t i = 0; i < cols; i += Vector::kWidth) {
    F value = Vector::Mul(Vector::Sub(LoadUpTo(x + i, cols - i), mean), scale);
    if (weight != nullptr) value = Vector::Mul(value, LoadUpTo(weight + i, cols - i));
    if (bias != nullptr) value = Vector::Add(value, LoadUpTo(bias + i, cols - i));
    StoreUpTo(out + i, cols - i, value);
  }
}

}  // namespace
}  // namespace quire

#endif  // QUIRE_KERNELS_LAYER_NORM_CPU_ROW_H_
