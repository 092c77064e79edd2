// The quantised formats of weights and what their codes mean. Constants alone: files of every instruction set include
// this.
//
// A row is super-blocks of kSuper elements, each of groups of kGroup elements. An element is a code of kBits bits:
//
//   w = (d * scale) * (value(code) - kOffset) - dmin * min
//
// d (and dmin, where kHasMin) belong to the super-block, scale (and min) are small integers of the group, 1 where the
// format has none (kHasSubScales false). value(code) = code, but for MXFP4, whose sixteen codes are a table.

#ifndef QUIRE_KERNELS_LINEAR_BLOCK_FORMAT_H_
#define QUIRE_KERNELS_LINEAR_BLOCK_FORMAT_H_

#include <cstdint>

namespace quire {

enum class BlockFormat : uint8_t {
  kNone,  // not quantised
  kQ8_0,  // int8, also what --quantization int8 makes
  kQ4_0,  // int4 without a minimum, also what --quantization int4 makes
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kMxfp4,
};
constexpr int kNumBlockFormats = static_cast<int>(BlockFormat::kMxfp4) + 1;

template <int bits, int group, int super, int offset, bool has_min>
struct BlockTraitsOf {
  static constexpr int kBits = bits;
  static constexpr int kGroup = group;
  static constexpr int kSuper = super;
  static constexpr int kOffset = offset;
  static constexpr bool kHasMin = has_min;
  static constexpr bool kHasSubScales = super > group;
  static constexpr bool kIsTable = false;
};

template <BlockFormat>
struct BlockTraits;
template <>
struct BlockTraits<BlockFormat::kQ8_0> : BlockTraitsOf<8, 32, 32, 128, false> {};
template <>
struct BlockTraits<BlockFormat::kQ4_0> : BlockTraitsOf<4, 32, 32, 8, false> {};
template <>
struct BlockTraits<BlockFormat::kQ4_1> : BlockTraitsOf<4, 32, 32, 0, true> {};
template <>
struct BlockTraits<BlockFormat::kQ5_0> : BlockTraitsOf<5, 32, 32, 16, false> {};
template <>
struct BlockTraits<BlockFormat::kQ5_1> : BlockTraitsOf<5, 32, 32, 0, true> {};
template <>
struct BlockTraits<BlockFormat::kQ2_K> : BlockTraitsOf<2, 16, 256, 0, true> {};
template <>
struct BlockTraits<BlockFormat::kQ3_K> : BlockTraitsOf<3, 16, 256, 4, false> {};
template <>
struct BlockTraits<BlockFormat::kQ4_K> : BlockTraitsOf<4, 32, 256, 0, true> {};
template <>
struct BlockTraits<BlockFormat::kQ5_K> : BlockTraitsOf<5, 32, 256, 0, true> {};
template <>
struct BlockTraits<BlockFormat::kQ6_K> : BlockTraitsOf<6, 16, 256, 32, false> {};
// What MXFP4's codes stand for: twice the values of e2m1 (OCP Microscaling Formats, section 5.3.3), plus the offset
// that makes them unsigned; d is half of the block's power of two, kept as a bfloat16, which has its whole range.
constexpr uint8_t kMxfp4Values[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
template <>
struct BlockTraits<BlockFormat::kMxfp4> : BlockTraitsOf<4, 32, 32, 12, false> {
  static constexpr bool kIsTable = true;
};

// In memory, for `cpu`, a weight is panels of kPanelRows rows, as that of numbers is, and a panel is its super-blocks
// one after another. With L = kPanelRows lanes:
//
//   kHasSubScales:  d [L] | dmin [L] | 8 times (codes | scale int8 [32 / kGroup][L] | min int8 [32 / kGroup][L])
//   else:           codes | d [L] | dmin [L]
//
// (dmin and min where kHasMin), d and dmin 16 bits each. Codes are those of 32 elements of k by 64 lanes: words of 32
// bits, [word][L], a lane's in as many words as kBits. Bits are split into planes of 8, 4, 2 and 1: 3 = 2 + 1, 5 = 4 +
// 1, 6 = 4 + 2, the first the low bits. A plane of b bits has b words a lane; step s of 8 (elements 4 s .. 4 s + 3, as
// the bytes of a dot product of four) is bits [b * s % 32 ... ] of each byte: word s * b / 8, shifted right by s * b
// % 8.
template <class Traits>
struct BlockLayout {
  static constexpr int kLanes = 64;
  static constexpr int kChunk = 32;  // elements of k whose codes lie together
  static constexpr int kLowBits = Traits::kBits == 8 ? 8 : Traits::kBits >= 4 ? 4 : 2;
  static constexpr int kHighBits = Traits::kBits - kLowBits;  // 0, 1 or 2
  static constexpr int kCodeBytes = Traits::kBits * kLanes * 4;
  static constexpr int kChunksPerSuper = Traits::kSuper / kChunk;
  static constexpr int kGroupsPerChunk = kChunk / Traits::kGroup;
  static constexpr int kSubBytes =
      Traits::kHasSubScales ? kGroupsPerChunk * kLanes * (Traits::kHasMin ? 2 : 1) : 0;  // of a chunk
  static constexpr int kScaleBytes = kLanes * 2 * (Traits::kHasMin ? 2 : 1);             // of a super-block
  static constexpr int kChunkBytes = kCodeBytes + kSubBytes;
  static constexpr int kSuperBytes = kScaleBytes + kChunksPerSuper * kChunkBytes;
  static constexpr int kFirstChunk = Traits::kHasSubScales ? kScaleBytes : 0;  // where the chunks begin
  static constexpr int kScales = Traits::kHasSubScales ? 0 : kChunkBytes;      // where d begins
};

}  // namespace quire

#endif  // QUIRE_KERNELS_LINEAR_BLOCK_FORMAT_H_
