// What the code of CUDA kernels needs of numbers, on the device and in the emulation of the tests alike: the one place
// where the two differ in arithmetic.
//
// A kernel is a struct K with `Params` (trivially copyable), `kThreads`, `kMinCtas` (CTAs that share a multiprocessor),
// `kSharedBytes` (of a CTA) and
//
//   template <typename Thread> static QUIRE_DEVICE void Run(const Thread& thread, const Params& params);
//
// where Thread is CudaThread (kernels/cuda/thread.cuh) or the emulation's (tests/kernels/cuda/emulation.h): the thread,
// its warp, its CTA, and every instruction that C++ has no word for. Kernels use nothing else of CUDA, so that their
// logic runs, and is tested, where there is no device. Rules that keep the two the same:
//   - all 32 lanes of a warp call a warp's function together; all threads of a CTA call Sync;
//   - shared memory is Thread::shared(), dynamic, uninitialised;
//   - registers arrays are indexed by constants once loops are unrolled.

#ifndef QUIRE_KERNELS_CUDA_NUMBERS_H_
#define QUIRE_KERNELS_CUDA_NUMBERS_H_

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/dtype.h"

#ifdef __CUDACC__
#define QUIRE_DEVICE __device__ __forceinline__
#define QUIRE_UNROLL _Pragma("unroll")
#define QUIRE_NO_UNROLL _Pragma("unroll 1")
#else
#define QUIRE_DEVICE inline
#define QUIRE_UNROLL
#define QUIRE_NO_UNROLL
#endif

namespace quire::cuda {

constexpr int kWarpSize = 32;

template <typename T>
constexpr T CeilDiv(T a, T b) {
  return (a + b - 1) / b;
}
template <typename T>
constexpr T RoundUp(T a, T b) {
  return CeilDiv(a, b) * b;
}
template <typename T>
constexpr T Min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
constexpr T Max(T a, T b) {
  return a < b ? b : a;
}

constexpr float kNegativeInfinity = -__builtin_huge_valf();
constexpr float kNaN = __builtin_nanf("");
constexpr float kLog2E = 0x1.715476p+0f;  // 1 / ln 2

// ---- one element ----

QUIRE_DEVICE float Load(const float* p) { return *p; }
QUIRE_DEVICE float Load(const BFloat16* p) { return std::bit_cast<float>(uint32_t{p->bits} << 16); }
QUIRE_DEVICE float HalfToFloat(uint16_t bits) {
#ifdef __CUDACC__
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
#else
  return ToFloat(Float16{bits});
#endif
}
QUIRE_DEVICE float Load(const Float16* p) { return HalfToFloat(p->bits); }

// Round to nearest, ties to even.
QUIRE_DEVICE void Store(float* p, float value) { *p = value; }
QUIRE_DEVICE void Store(BFloat16* p, float value) {
#ifdef __CUDACC__
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(p->bits) : "f"(value));
#else
  *p = ToBFloat16(value);
#endif
}
QUIRE_DEVICE void Store(Float16* p, float value) {
#ifdef __CUDACC__
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(p->bits) : "f"(value));
#else
  *p = ToFloat16(value);
#endif
}

// ---- two elements in a register, the first in the low half ----

template <typename T>
QUIRE_DEVICE uint32_t Pack(float low, float high) {
#ifdef __CUDACC__
  uint32_t pair;
  if constexpr (std::is_same_v<T, BFloat16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  }
  return pair;
#else
  T a, b;
  Store(&a, low);
  Store(&b, high);
  return uint32_t{a.bits} | uint32_t{b.bits} << 16;
#endif
}

template <typename T>
QUIRE_DEVICE float UnpackLow(uint32_t pair) {
  if constexpr (std::is_same_v<T, BFloat16>) return std::bit_cast<float>(pair << 16);
  return HalfToFloat(static_cast<uint16_t>(pair));
}
template <typename T>
QUIRE_DEVICE float UnpackHigh(uint32_t pair) {
  if constexpr (std::is_same_v<T, BFloat16>) return std::bit_cast<float>(pair & 0xffff0000u);
  return HalfToFloat(static_cast<uint16_t>(pair >> 16));
}

// Bytes of (a, b), a's four first: the byte that digit i of `selector` counts, 0 .. 7, becomes byte i.
QUIRE_DEVICE uint32_t PermuteBytes(uint32_t a, uint32_t b, uint32_t selector) {
#ifdef __CUDACC__
  return __byte_perm(a, b, selector);
#else
  const uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) result |= static_cast<uint32_t>(bytes >> (selector >> 4 * i & 7) * 8 & 0xff) << 8 * i;
  return result;
#endif
}

// a * b + c of pairs of bfloat16, rounded once; subnormal numbers count.
QUIRE_DEVICE uint32_t MultiplyAddPair(uint32_t a, uint32_t b, uint32_t c) {
#ifdef __CUDACC__
  uint32_t result;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
  return result;
#else
  using T = BFloat16;
  return Pack<T>(UnpackLow<T>(a) * UnpackLow<T>(b) + UnpackLow<T>(c),
                 UnpackHigh<T>(a) * UnpackHigh<T>(b) + UnpackHigh<T>(c));
#endif
}

// Whether either element of a pair is NaN or infinite: its exponent is all ones.
template <typename T>
QUIRE_DEVICE bool AnyNotFinite(uint32_t pair) {
  constexpr uint32_t kExponent = std::is_same_v<T, BFloat16> ? 0x7f80u : 0x7c00u;
  return (pair & kExponent) == kExponent || ((pair >> 16) & kExponent) == kExponent;
}

// ---- functions ----

// 2^x; about 2 units in the last place on the device. 2^-inf = 0.
QUIRE_DEVICE float Exp2(float x) {
#ifdef __CUDACC__
  float value;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(x));
  return value;
#else
  return std::exp2(x);
#endif
}

QUIRE_DEVICE float Erf(float x) {
#ifdef __CUDACC__
  return erff(x);
#else
  return std::erf(x);
#endif
}

// 1 - 2 / (1 + e^(2 x)); the ends are exact, and NaN stays NaN.
QUIRE_DEVICE float Tanh(float x) { return 1.0f - 2.0f / (1.0f + Exp2(2.0f * x * kLog2E)); }

QUIRE_DEVICE double Log(double x) {
#ifdef __CUDACC__
  return log(x);
#else
  return std::log(x);
#endif
}
QUIRE_DEVICE double Ceil(double x) {
#ifdef __CUDACC__
  return ceil(x);
#else
  return std::ceil(x);
#endif
}

QUIRE_DEVICE float Sqrt(float x) {
#ifdef __CUDACC__
  return sqrtf(x);
#else
  return std::sqrt(x);
#endif
}

// A product and a sum, each rounded: kernels whose bits must be those of other backends say so by these.
QUIRE_DEVICE float MultiplyRounded(float a, float b) {
#ifdef __CUDACC__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}
QUIRE_DEVICE float AddRounded(float a, float b) {
#ifdef __CUDACC__
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_CUDA_NUMBERS_H_
