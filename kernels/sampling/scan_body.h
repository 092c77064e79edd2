// The kernels of scan.h, written once over `Vector` of kernels/cpu/vector_*.h, which scan_*.cc include before. Nothing
// here is fused, so that every instruction set gives the bits of weight.h.

#ifndef QUIRE_KERNELS_SAMPLING_SCAN_BODY_H_
#define QUIRE_KERNELS_SAMPLING_SCAN_BODY_H_

#include <cstdint>

#include "kernels/sampling/scan.h"
#include "kernels/sampling/weight.h"

namespace quire::sampling {
namespace {

using F = Vector::F;
constexpr int64_t kLanes = Vector::kWidth;

// Half the lanes of an F: they fill a vector once they are doubles.
typedef float Half __attribute__((vector_size(kLanes * 2)));
typedef double Doubles __attribute__((vector_size(kLanes * 4)));
typedef uint64_t Integers __attribute__((vector_size(kLanes * 4)));

// Both of the following hold kWeightRoundBits too much in every lane, as often as weights were added.
struct RawWeights {
  Integers low = {};
  Integers high = {};
};

[[gnu::always_inline]] inline Integers RawWeight(Half e) {
  return (Integers)(__builtin_convertvector(e, Doubles) * kWeightOne + kWeightRound);
}

// Adds the weights of the logits; the largest term is x = 0. Max(a, b) is b where a is NaN: -inf - -inf would be.
[[gnu::always_inline]] inline void AddWeights(F logits, F max, F inverse, RawWeights& sum) {
  const F x = Vector::Max(Vector::Mul(Vector::Sub(logits, max), inverse), Vector::Set1(kMinExponent));
  const F round = Vector::Set1(kRound);
  const F shifted = Vector::Add(Vector::Mul(x, Vector::Set1(kLog2E)), round);
  const F n = Vector::Sub(shifted, round);
  F r = Vector::Sub(x, Vector::Mul(n, Vector::Set1(kLn2High)));
  r = Vector::Sub(r, Vector::Mul(n, Vector::Set1(kLn2Low)));
  F p = Vector::Set1(kExp[4]);
  for (int i = 3; i >= 0; --i) p = Vector::Add(Vector::Mul(p, r), Vector::Set1(kExp[i]));
  const F mantissa = Vector::Add(Vector::Add(Vector::Mul(p, Vector::Mul(r, r)), r), Vector::Set1(1.0f));
  const F e = Vector::Mul(mantissa, Vector::Pow2(shifted));
  Half halves[2];
  static_assert(sizeof halves == sizeof e);
  __builtin_memcpy(halves, &e, sizeof e);
  sum.low += RawWeight(halves[0]);
  sum.high += RawWeight(halves[1]);
}

// n logits at p; if they are no whole vector, the rest is -inf, whose weight is 0.
[[gnu::always_inline]] inline F LoadLogits(const float* p, int64_t n) {
  if (n >= kLanes) [[likely]] {
    return Vector::Load(p);
  }
  float all[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) all[i] = i < n ? p[i] : -__builtin_inff();
  return Vector::Load(all);
}

bool Scan(const float* logits, int64_t n, float* maxima) {
  const F lowest = Vector::Set1(-0x1.fffffep+127f);
  const F zero = Vector::Set1(0.0f);
  F poison = zero;  // becomes NaN: 0 * NaN, 0 * inf
  for (int64_t begin = 0; begin < n; begin += kStretch) {
    const int64_t end = begin + kStretch < n ? begin + kStretch : n;
    F max = Vector::Set1(-__builtin_inff());
    for (int64_t i = begin; i < end; i += kLanes) {
      const F x = LoadLogits(logits + i, end - i);
      max = Vector::Max(x, max);
      poison = Vector::Add(poison, Vector::Mul(Vector::Max(lowest, x), zero));  // Max(a, b) is b where b is NaN
    }
    float lanes[kLanes];
    Vector::Store(lanes, max);
    for (int64_t width = kLanes / 2; width > 0; width /= 2) {
      for (int64_t i = 0; i < width; ++i) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
    }
    *maxima++ = lanes[0];
  }
  return Vector::Sum(poison) == 0.0f;
}

uint64_t Sum(const float* logits, int64_t n, float max, float inverse_temperature, uint64_t* sums) {
  const F top = Vector::Set1(max);
  const F inverse = Vector::Set1(inverse_temperature);
  uint64_t total = 0;
  for (int64_t begin = 0; begin < n; begin += kStretch) {
    const int64_t end = begin + kStretch < n ? begin + kStretch : n;
    RawWeights raw;
    uint64_t count = 0;  // of weights, those beyond the end included
    for (int64_t i = begin; i < end; i += kLanes, count += kLanes)
      AddWeights(LoadLogits(logits + i, end - i), top, inverse, raw);
    const Integers both = raw.low + raw.high;
    uint64_t sum = 0 - count * kWeightRoundBits;  // modulo 2^64, as all of it
    for (int64_t i = 0; i < kLanes / 2; ++i) sum += both[i];
    if (sums != nullptr) *sums++ = sum;
    total += sum;
  }
  return total;
}

void Weigh(const float* logits, int64_t n, float max, float inverse_temperature, uint64_t* weights) {
  for (int64_t begin = 0; begin < n; begin += kLanes) {
    RawWeights raw;
    AddWeights(LoadLogits(logits + begin, n - begin), Vector::Set1(max), Vector::Set1(inverse_temperature), raw);
    uint64_t all[kLanes];
    __builtin_memcpy(all, &raw, sizeof all);
    const int64_t count = n - begin < kLanes ? n - begin : kLanes;
    for (int64_t i = 0; i < count; ++i) weights[begin + i] = all[i] - kWeightRoundBits;
  }
}

uint64_t SumAtLeast(const uint64_t* weights, int64_t n, uint64_t bound) {
  constexpr int64_t kStep = sizeof(Integers) / sizeof(uint64_t);
  // Weights are below 2^63, so the sign of the difference tells; comparing is slow where 64-bit comparisons lack.
  Integers sum = {};
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    Integers w;
    __builtin_memcpy(&w, weights + i, sizeof w);
    sum += w & (((w - bound) >> 63) - 1);
  }
  uint64_t total = 0;
  for (int64_t lane = 0; lane < kStep; ++lane) total += sum[lane];
  for (; i < n; ++i) total += weights[i] >= bound ? weights[i] : 0;
  return total;
}

constexpr SamplingKernels kSamplingKernels = {&Scan, &Sum, &SumAtLeast, &Weigh};

}  // namespace
}  // namespace quire::sampling

#endif  // QUIRE_KERNELS_SAMPLING_SCAN_BODY_H_
