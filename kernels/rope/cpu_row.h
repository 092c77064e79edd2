// The rotation of RoPE, for whatever instructions this is compiled: included by the kernels_*.cc alone.

#ifndef QUIRE_KERNELS_ROPE_CPU_ROW_H_
#define QUIRE_KERNELS_ROPE_CPU_ROW_H_

#include <cstdint>

#include "kernels/cpu/row.h"

namespace quire {
namespace {

// Products and differences are rounded one by one, as in ref.cc: the same bits on every instruction set.
inline void Rotate(const float* a, const float* b, const float* cos, const float* sin, int64_t n, float* out_a,
                   float* out_b) {
  for (int64_t i = 0; i < n; i += Vector::kWidth) {
    const int64_t count = n - i;
    const Vector::F va = LoadUpTo(a + i, count), vb = LoadUpTo(b + i, count);
    const Vector::F vc = LoadUpTo(cos + i, count), vs = LoadUpTo(sin + i, count);
    StoreUpTo(out_a + i, count, Vector::Sub(Vector::Mul(va, vc), Vector::Mul(vb, vs)));
    StoreUpTo(out_b + i, count, Vector::Add(Vector::Mul(vb, vc), Vector::Mul(va, vs)));
  }
}

}  // namespace
}  // namespace quire

#endif  // QUIRE_KERNELS_ROPE_CPU_ROW_H_
