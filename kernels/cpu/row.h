// Reading and writing rows by whole vectors, whatever Vector is: included by the kernels_*.cc alone, after their
// vector_*.h.

#ifndef QUIRE_KERNELS_CPU_ROW_H_
#define QUIRE_KERNELS_CPU_ROW_H_

#include <cstdint>

namespace quire {
namespace {

// Where a vector goes: the storage types of DType, told apart by their C++ type.
struct BFloat16Bits {
  uint16_t bits;
};
struct Float16Bits {
  uint16_t bits;
};

inline void StoreAs(float* p, Vector::F a) { Vector::Store(p, a); }
inline void StoreAs(BFloat16Bits* p, Vector::F a) { Vector::StoreBf16(&p->bits, a); }
inline void StoreAs(Float16Bits* p, Vector::F a) { Vector::StoreF16(&p->bits, a); }

// The first `count` of a vector's lanes, at most all of them; the others are 0. Touches no memory beyond them.
inline Vector::F LoadUpTo(const float* p, int64_t count) {
  if (count >= Vector::kWidth) return Vector::Load(p);
  float lanes[Vector::kWidth] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = p[i];
  return Vector::Load(lanes);
}

template <class Out>
inline void StoreUpTo(Out* p, int64_t count, Vector::F a) {
  if (count >= Vector::kWidth) return StoreAs(p, a);
  Out lanes[Vector::kWidth];
  StoreAs(lanes, a);
  for (int64_t i = 0; i < count; ++i) p[i] = lanes[i];
}

template <class Out>
void ConvertRow(const float* x, int64_t n, void* y) {
  for (int64_t i = 0; i < n; i += Vector::kWidth) StoreUpTo(static_cast<Out*>(y) + i, n - i, LoadUpTo(x + i, n - i));
}

// y += scale * x, each product rounded with its sum.
inline void AddScaledRow(const float* x, float scale, int64_t n, float* y) {
  const Vector::F factor = Vector::Set1(scale);
  for (int64_t i = 0; i < n; i += Vector::kWidth) {
    StoreUpTo(y + i, n - i, Vector::Fma(LoadUpTo(x + i, n - i), factor, LoadUpTo(y + i, n - i)));
  }
}

// e^x. Within 2 units of the last place for |x| <= 87; below, 1.2e-38 and above, 1.7e38 stand for what float32 hardly
// holds. e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln 2 / 2; ln 2 is taken in two parts, the first exact in 9
// bits; e^r by its Taylor polynomial of degree 7, whose next term is 2e-9.
inline Vector::F Exp(Vector::F x) {
  const Vector::F bounded = Vector::Min(Vector::Max(x, Vector::Set1(-87.0f)), Vector::Set1(87.0f));
  const Vector::F magic = Vector::Set1(0x1.8p23f);  // added, it leaves the nearest integer in the low bits
  const Vector::F shifted = Vector::Add(Vector::Mul(bounded, Vector::Set1(1.44269504f)), magic);
  const Vector::F n = Vector::Sub(shifted, magic);
  Vector::F r = Vector::Fma(n, Vector::Set1(-0.693359375f), bounded);
  r = Vector::Fma(n, Vector::Set1(2.12194440e-4f), r);
  Vector::F p = Vector::Set1(1.0f / 5040);
  p = Vector::Fma(p, r, Vector::Set1(1.0f / 720));
  p = Vector::Fma(p, r, Vector::Set1(1.0f / 120));
  p = Vector::Fma(p, r, Vector::Set1(1.0f / 24));
  p = Vector::Fma(p, r, Vector::Set1(1.0f / 6));
  p = Vector::Fma(p, r, Vector::Set1(0.5f));
  p = Vector::Fma(p, r, Vector::Set1(1.0f));
  p = Vector::Fma(p, r, Vector::Set1(1.0f));
  return Vector::Mul(p, Vector::Pow2(shifted));
}

}  // namespace
}  // namespace quire

#endif  // QUIRE_KERNELS_CPU_ROW_H_
