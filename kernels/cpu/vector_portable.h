// Vector for any CPU: four float32 lanes as the compiler likes them. Included by kernels_portable.cc alone.

#ifndef QUIRE_KERNELS_CPU_VECTOR_PORTABLE_H_
#define QUIRE_KERNELS_CPU_VECTOR_PORTABLE_H_

#include <cstdint>

#include "kernels/dtype.h"

namespace quire {
namespace {

struct Vector {
  typedef float F __attribute__((vector_size(16)));
  typedef uint32_t U __attribute__((vector_size(16)));
  typedef uint16_t H __attribute__((vector_size(8)));

  static constexpr int kWidth = 4;
  static constexpr int kRegisters = 16;

  static F Set1(float a) { return F{a, a, a, a}; }
  static F Load(const float* p) {
    F a;
    __builtin_memcpy(&a, p, sizeof a);
    return a;
  }
  static void Store(float* p, F a) { __builtin_memcpy(p, &a, sizeof a); }
  static F Add(F a, F b) { return a + b; }
  static F Sub(F a, F b) { return a - b; }
  static F Mul(F a, F b) { return a * b; }
  static F Div(F a, F b) { return a / b; }
  static F Fma(F a, F b, F c) { return a * b + c; }  // two roundings: there may be no instruction for one
  static F Min(F a, F b) { return a < b ? a : b; }
  static F Max(F a, F b) { return a > b ? a : b; }

  static F LoadBf16(const uint16_t* p) { return (F)(__builtin_convertvector(LoadH(p), U) << 16); }
  static F LoadF16(const uint16_t* p) {
    const U h = __builtin_convertvector(LoadH(p), U);
    const U magnitude = h & 0x7fff;
    const U special = (U)(magnitude >= 0x7c00) & 0x7f800000;  // infinity, NaN
    const F scaled = (F)(magnitude << 13) * Set1(0x1p112f);   // see ToFloat(Float16)
    return (F)((U)scaled | special | ((h & 0x8000) << 16));
  }
  static F LoadBf16Even(const uint16_t* p) { return (F)(LoadU(p) << 16); }
  static F LoadBf16Odd(const uint16_t* p) { return (F)(LoadU(p) & 0xffff0000u); }
  static void StoreBf16(uint16_t* p, F a) {
    for (int i = 0; i < kWidth; ++i) p[i] = ToBFloat16(a[i]).bits;
  }
  static void StoreF16(uint16_t* p, F a) {
    for (int i = 0; i < kWidth; ++i) p[i] = ToFloat16(a[i]).bits;
  }

  // 2^n, n the low bits of a number that was brought to integer by adding 1.5 * 2^23; -126 <= n <= 127.
  static F Pow2(F magic) { return (F)(((U)magic << 23) + 0x3f800000u); }

  static float Sum(F a) { return (a[0] + a[2]) + (a[1] + a[3]); }

  static void Prefetch(const void* p) { __builtin_prefetch(p); }

 private:
  static H LoadH(const uint16_t* p) {
    H h;
    __builtin_memcpy(&h, p, sizeof h);
    return h;
  }
  static U LoadU(const uint16_t* p) {
    U u;
    __builtin_memcpy(&u, p, sizeof u);
    return u;
  }
};

}  // namespace
}  // namespace quire

#endif  // QUIRE_KERNELS_CPU_VECTOR_PORTABLE_H_
