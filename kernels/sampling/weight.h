// The weight of a token, in integers.
//
//   w[i] = round(2^44 * e^((logit[i] - max logit) * inverse temperature))         0 .. 2^44, ties of the rounding to
//   even
//
// Integers, because their sums are exact: a sum over the vocabulary does not depend on the order, the number of lanes
// or the number of workers, a cumulative sum needs no sorted order to be reproducible, and a draw is one comparison.
// 2^20 weights of at most 2^44 fit 64 bits. What is lost is below 2^-45 of the most probable token's probability, for
// each token.
//
// e^x is computed in float32 by multiplications and additions alone, each rounded once and none fused, so that scalar
// code and every vector width give the same bits; relative error below 1.2e-7, e^0 = 1 exactly:
//
//   n = round(x / ln 2)      by adding and subtracting kRound
//   r = x - n ln 2           in two steps, ln 2 = kLn2High + kLn2Low, n * kLn2High being exact for |n| < 2^9
//   e^x = 2^n (1 + (r + r^2 P(r)))      P: minimax of relative error on |r| <= ln 2 / 2
//   x < kMinExponent: 0

#ifndef QUIRE_KERNELS_SAMPLING_WEIGHT_H_
#define QUIRE_KERNELS_SAMPLING_WEIGHT_H_

#include <bit>
#include <cstdint>

namespace quire::sampling {

inline constexpr int64_t kMaxVocabSize = int64_t{1} << 20;

inline constexpr float kMinExponent = -32.0f;    // e^-32 * 2^44 < 1/2
inline constexpr float kLog2E = 0x1.715476p+0f;  // 1 / ln 2
inline constexpr float kRound = 0x1.8p+23f;      // its ulp is 1: adding it rounds to an integer, found in the low bits
inline constexpr float kLn2High = 0x1.62ep-1f;   // 15 bits, so that n * kLn2High is exact
inline constexpr float kLn2Low = 0x1.0bfbe8p-15f;  // ln 2 - kLn2High
inline constexpr float kExp[5] = {0.4999999403953552f, 0.1666651964187622f, 0.04166839271783829f, 0.008368780836462975f,
                                  0.0013814467238262296f};  // P(r) = kExp[0] + kExp[1] r + ...

inline constexpr double kWeightOne = 0x1p44;  // the weight of the most probable token
inline constexpr double kWeightRound =
    0x1p52;  // its ulp is 1: adding it rounds a weight to an integer, found in the low 52 bits
inline constexpr uint64_t kWeightRoundBits = 0x4330000000000000;  // of kWeightRound, to be subtracted

// e^x of x <= 0 as a weight: the definition, for hosts and devices; the SIMD versions are in scan_body.h.
constexpr uint64_t WeightOf(float x) {
  if (!(x >= kMinExponent)) return 0;
  const float shifted = x * kLog2E + kRound;
  const float n = shifted - kRound;
  float r = x - n * kLn2High;
  r = r - n * kLn2Low;
  constexpr float kP[5] = {kExp[0], kExp[1], kExp[2], kExp[3], kExp[4]};  // a device has no address of kExp
  float p = kP[4];
  for (int i = 3; i >= 0; --i) p = p * r + kP[i];
  const float mantissa = (p * (r * r) + r) + 1.0f;
  const float e = std::bit_cast<float>(std::bit_cast<uint32_t>(mantissa) + (std::bit_cast<uint32_t>(shifted) << 23));
  return std::bit_cast<uint64_t>(static_cast<double>(e) * kWeightOne + kWeightRound) - kWeightRoundBits;
}

}  // namespace quire::sampling

#endif  // QUIRE_KERNELS_SAMPLING_WEIGHT_H_
