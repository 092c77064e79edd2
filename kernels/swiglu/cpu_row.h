// One row of SwiGLU for whatever Vector is: included by the kernels_*.cc alone.

#ifndef QUIRE_KERNELS_SWIGLU_CPU_ROW_H_
#define QUIRE_KERNELS_SWIGLU_CPU_ROW_H_

#include <cstdint>

#include "kernels/cpu/row.h"

namespace quire {
namespace {

template <class Out>
void SwiGluRow(const float* gate, const float* up, int64_t cols, void* y) {
  const Vector::F one = Vector::Set1(1.0f);
  for (int64_t i = 0; i < cols; i += Vector::kWidth) {
    const Vector::F g = LoadUpTo(gate + i, cols - i);
    const Vector::F silu = Vector::Div(g, Vector::Add(one, Exp(Vector::Sub(Vector::Set1(0), g))));
    StoreUpTo(static_cast<Out*>(y) + i, cols - i, Vector::Mul(silu, LoadUpTo(up + i, cols - i)));
  }
}

}  // namespace
}  // namespace quire

#endif  // QUIRE_KERNELS_SWIGLU_CPU_ROW_H_
