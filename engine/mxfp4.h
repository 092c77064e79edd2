// MXFP4 (OCP Microscaling Formats 1.0, §5.3): 32 values of 4 bits, FP4 E2M1, share a scale of 8 bits, E8M0.
//
//   value = E2M1 * 2^(scale - 127)        E2M1: sign, two exponent bits, one of mantissa: 0, .5, 1, 1.5, 2, 3, 4, 6
//
// As gpt-oss stores it: the low half of a byte comes before the high one. A scale of 255 stands for NaN.

#ifndef QUIRE_ENGINE_MXFP4_H_
#define QUIRE_ENGINE_MXFP4_H_

#include <cmath>
#include <cstdint>
#include <limits>

namespace quire {

constexpr int64_t kMxfp4Group = 32;  // values to a scale

// Value `i` of a tensor whose last dimension is a multiple of kMxfp4Group.
inline float Mxfp4Value(const uint8_t* blocks, const uint8_t* scales, int64_t i) {
  constexpr float kE2M1[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                               -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
  const uint8_t byte = blocks[i / 2], scale = scales[i / kMxfp4Group];
  if (scale == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::ldexp(kE2M1[i % 2 == 0 ? byte & 15 : byte >> 4], scale - 127);
}

}  // namespace quire

#endif  // QUIRE_ENGINE_MXFP4_H_
