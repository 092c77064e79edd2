// The elementwise functions, and one row of them, for whatever Vector is: included by the kernels_*.cc alone.

#ifndef QUIRE_KERNELS_ACTIVATION_CPU_ROW_H_
#define QUIRE_KERNELS_ACTIVATION_CPU_ROW_H_

#include <cstdint>

#include "kernels/activation/activation_kind.h"
#include "kernels/cpu/row.h"

namespace quire {
namespace {

// 1 + e^-x.
inline Vector::F OnePlusExpMinus(Vector::F x) {
  return Vector::Add(Vector::Set1(1.0f), Exp(Vector::Sub(Vector::Set1(0), x)));
}

inline Vector::F Silu(Vector::F x) { return Vector::Div(x, OnePlusExpMinus(x)); }

// x / 2 (1 + tanh u) = x / (1 + e^(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3).
inline Vector::F GeluTanh(Vector::F x) {
  const Vector::F square = Vector::Mul(x, x);
  const Vector::F inner = Vector::Fma(square, Vector::Set1(1.5957691216f * 0.044715f), Vector::Set1(1.5957691216f));
  return Vector::Div(x, OnePlusExpMinus(Vector::Mul(x, inner)));
}

// x / 2 (1 + erf(x / sqrt 2)) = max(x, 0) - |x| / 2 erfc(z), z = |x| / sqrt 2. e^(z^2) erfc(z) is a polynomial in t = 1
// / (1 + 0.3275911 z) (Abramowitz and Stegun 7.1.26), here of degree 8, least squares weighted to a relative error of
// 4e-7.
inline Vector::F GeluErf(Vector::F x) {
  const Vector::F zero = Vector::Set1(0);
  const Vector::F size = Vector::Max(x, Vector::Sub(zero, x));
  const Vector::F z = Vector::Mul(size, Vector::Set1(0.70710678f));
  const Vector::F one = Vector::Set1(1.0f);
  const Vector::F t = Vector::Div(one, Vector::Fma(z, Vector::Set1(0.3275911f), one));
  constexpr float kCoefficients[] = {-0.13512214762f, 0.47114451529f, -0.36080005984f, 0.41050363419f,
                                     0.04882886373f,  0.19850828758f, 0.18196969003f,  0.18496753492f};
  Vector::F p = Vector::Set1(kCoefficients[0]);
  for (int i = 1; i < 8; ++i) p = Vector::Fma(p, t, Vector::Set1(kCoefficients[i]));
  const Vector::F erfc = Vector::Mul(Vector::Mul(p, t), Exp(Vector::Mul(Vector::Sub(zero, z), z)));
  return Vector::Sub(Vector::Max(zero, x), Vector::Mul(Vector::Mul(size, Vector::Set1(0.5f)), erfc));
}

// tanh x = 1 - 2 / (1 + e^(2 x)), within 1e-7. NaN stays NaN, though Exp forgets it.
inline Vector::F Tanh(Vector::F x) {
  const Vector::F minus_two = Vector::Set1(-2.0f);
  const Vector::F bounded = Vector::Min(Vector::Set1(20.0f), Vector::Max(Vector::Set1(-20.0f), x));
  const Vector::F part = Vector::Div(minus_two, OnePlusExpMinus(Vector::Mul(minus_two, bounded)));
  return Vector::Add(Vector::Add(Vector::Set1(1.0f), part), Vector::Sub(bounded, bounded));
}

template <class Out, class Function>
inline void Map(const float* x, int64_t cols, void* y, const Function& function) {
  for (int64_t i = 0; i < cols; i += Vector::kWidth) {
    StoreUpTo(static_cast<Out*>(y) + i, cols - i, function(LoadUpTo(x + i, cols - i)));
  }
}

template <class Out>
void ActivationRow(ActivationKind kind, float cap, const float* x, int64_t cols, void* y) {
  using F = Vector::F;
  switch (kind) {
    case ActivationKind::kIdentity:
      return Map<Out>(x, cols, y, [](F x) { return x; });
    case ActivationKind::kRelu:  // Max gives its second operand where one is NaN
      return Map<Out>(x, cols, y, [](F x) { return Vector::Max(Vector::Set1(0), x); });
    case ActivationKind::kSilu:
      return Map<Out>(x, cols, y, [](F x) { return Silu(x); });
    case ActivationKind::kGeluTanh:
      return Map<Out>(x, cols, y, [](F x) { return GeluTanh(x); });
    case ActivationKind::kGeluErf:
      return Map<Out>(x, cols, y, [](F x) { return GeluErf(x); });
    case ActivationKind::kSoftCap:
      return Map<Out>(x, cols, y, [cap](F x) {
        return Vector::Mul(Vector::Set1(cap), Tanh(Vector::Mul(x, Vector::Set1(1.0f / cap))));
      });
  }
}

}  // namespace
}  // namespace quire

#endif  // QUIRE_KERNELS_ACTIVATION_CPU_ROW_H_
