// MXFP4 (OCP Microscaling Formats 1.0, §5.3) as gpt-oss stores it: 32 values of 4 bits, FP4 E2M1, in sixteen bytes, the
// low half of a byte before the high one; their scale of 8 bits, E8M0, in a tensor of its own. What the values stand
// for is kernels/linear's: BlockFormat::kMxfp4.

#ifndef QUIRE_ENGINE_MXFP4_H_
#define QUIRE_ENGINE_MXFP4_H_

#include <cstdint>

#include "kernels/linear/weight_format.h"

namespace quire {

constexpr int64_t kMxfp4Group = 32;  // values to a scale

// A group as BlockFormat::kMxfp4 lays it: the scale, then bytes of value j in the low half and j + 16 in the high one.
inline void ToMxfp4Block(const uint8_t* codes, uint8_t scale, uint8_t* block) {
  constexpr int kHalf = kMxfp4Group / 2;
  static_assert(InfoOf(BlockFormat::kMxfp4).bytes == 1 + kHalf && InfoOf(BlockFormat::kMxfp4).len == kMxfp4Group);
  const auto code = [codes](int i) { return static_cast<uint8_t>(codes[i / 2] >> (i % 2 * 4) & 15); };
  block[0] = scale;
  for (int j = 0; j < kHalf; ++j) block[1 + j] = static_cast<uint8_t>(code(j) | code(j + kHalf) << 4);
}

}  // namespace quire

#endif  // QUIRE_ENGINE_MXFP4_H_
