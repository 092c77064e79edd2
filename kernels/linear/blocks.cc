#include "kernels/linear/blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/check.h"
#include "kernels/linear/block_visit.h"

namespace quire {
namespace {

uint16_t LoadHalf(const uint8_t* from) { return static_cast<uint16_t>(from[0] | from[1] << 8); }

void SetOnes(DecodedBlock* block) {
  std::fill_n(block->scales, std::size(block->scales), int8_t{1});
  std::fill_n(block->mins, std::size(block->mins), int8_t{1});
}

// Sixteen bytes of two nibbles: elements 0 .. 15 are the low ones, 16 .. 31 the high ones.
void Nibbles(const uint8_t* from, uint8_t* codes) {
  for (int i = 0; i < 16; ++i) {
    codes[i] = from[i] & 15;
    codes[i + 16] = from[i] >> 4;
  }
}

// The fifth bits of 32 elements.
void FifthBits(const uint8_t* from, uint8_t* codes) {
  for (int i = 0; i < 32; ++i) codes[i] |= (from[i / 8] >> (i % 8) & 1) << 4;
}

uint16_t Negated(uint16_t half) { return half ^ 0x8000; }

void DecodeQ8_0(const uint8_t* from, DecodedBlock* block) {
  SetOnes(block);
  block->d = LoadHalf(from);
  for (int i = 0; i < 32; ++i) block->codes[i] = from[2 + i] ^ 0x80;  // + 128
}

// Q4_0, Q4_1, Q5_0 and Q5_1: d, the minimum where there is one, the fifth bits where there are, nibbles.
void DecodeQ4Or5(bool has_min, bool has_fifth, const uint8_t* from, DecodedBlock* block) {
  SetOnes(block);
  block->d = LoadHalf(from);
  from += 2;
  if (has_min) {
    block->dmin = Negated(LoadHalf(from));  // these formats add their minimum
    from += 2;
  }
  Nibbles(from + (has_fifth ? 4 : 0), block->codes);
  if (has_fifth) FifthBits(from, block->codes);
}

void DecodeQ2_K(const uint8_t* from, DecodedBlock* block) {
  const uint8_t *scales = from, *low = from + 16;
  block->d = LoadHalf(from + 80);
  block->dmin = LoadHalf(from + 82);
  for (int g = 0; g < 16; ++g) {
    block->scales[g] = static_cast<int8_t>(scales[g] & 15);
    block->mins[g] = static_cast<int8_t>(scales[g] >> 4);
  }
  for (int i = 0; i < 256; ++i) block->codes[i] = low[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
}

void DecodeQ3_K(const uint8_t* from, DecodedBlock* block) {
  const uint8_t *high = from, *low = from + 32, *scales = from + 96;
  block->d = LoadHalf(from + 108);
  for (int g = 0; g < 16; ++g) {
    const int low4 = g < 8 ? scales[g] & 15 : scales[g - 8] >> 4;
    const int high2 = scales[8 + g % 4] >> (g / 4 * 2) & 3;
    block->scales[g] = static_cast<int8_t>((low4 | high2 << 4) - 32);
  }
  for (int i = 0; i < 256; ++i) {
    const int low2 = low[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
    block->codes[i] = static_cast<uint8_t>(low2 | (high[i % 32] >> (i / 32) & 1) << 2);
  }
}

// Q4_K and Q5_K: d, dmin, eight scales and minima of 6 bits in 12 bytes, the fifth bits where there are, nibbles.
void DecodeQ4Or5_K(bool has_fifth, const uint8_t* from, DecodedBlock* block) {
  const uint8_t *packed = from + 4, *fifth = from + 16, *low = fifth + (has_fifth ? 32 : 0);
  block->d = LoadHalf(from);
  block->dmin = LoadHalf(from + 2);
  for (int g = 0; g < 8; ++g) {
    const int scale = g < 4 ? packed[g] & 63 : (packed[g + 4] & 15) | packed[g - 4] >> 6 << 4;
    const int min = g < 4 ? packed[g + 4] & 63 : packed[g + 4] >> 4 | packed[g] >> 6 << 4;
    block->scales[g] = static_cast<int8_t>(scale);
    block->mins[g] = static_cast<int8_t>(min);
  }
  for (int i = 0; i < 256; ++i) {
    const int low4 = low[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
    block->codes[i] = static_cast<uint8_t>(low4 | (has_fifth ? (fifth[i % 32] >> (i / 32) & 1) << 4 : 0));
  }
}

void DecodeQ6_K(const uint8_t* from, DecodedBlock* block) {
  const uint8_t *low = from, *high = from + 128;
  std::memcpy(block->scales, from + 192, 16);
  block->d = LoadHalf(from + 208);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, j = i % 128;
    const int low4 = low[half * 64 + j % 64] >> (j / 64 * 4) & 15;
    const int high2 = high[half * 32 + j % 32] >> (j / 32 * 2) & 3;
    block->codes[i] = static_cast<uint8_t>(low4 | high2 << 4);
  }
}

void DecodeMxfp4(const uint8_t* from, DecodedBlock* block) {
  SetOnes(block);
  // 2^(e - 127) / 2 as bfloat16: its exponent is e - 1, but for the two smallest, which are subnormal there.
  const int exponent = from[0];
  block->d = static_cast<uint16_t>(exponent >= 2 ? (exponent - 1) << 7 : 0x20 << exponent);
  Nibbles(from + 1, block->codes);
}

// Where the halves d and dmin lie in a block; -1: none.
struct ScalePlace {
  int d = 0;
  int dmin = -1;
};

ScalePlace ScalePlaceOf(BlockFormat blocks) {
  switch (blocks) {
    case BlockFormat::kQ4_1:
    case BlockFormat::kQ5_1:
    case BlockFormat::kQ4_K:
    case BlockFormat::kQ5_K:
      return {0, 2};
    case BlockFormat::kQ2_K:
      return {80, 82};
    case BlockFormat::kQ3_K:
      return {108};
    case BlockFormat::kQ6_K:
      return {208};
    default:
      return {0};
  }
}

}  // namespace

void DecodeBlock(BlockFormat blocks, const void* row, int64_t index, DecodedBlock* block) {
  const uint8_t* const from = static_cast<const uint8_t*>(row) + index * InfoOf(blocks).bytes;
  block->dmin = 0;
  switch (blocks) {
    case BlockFormat::kNone:
      break;
    case BlockFormat::kQ8_0:
      return DecodeQ8_0(from, block);
    case BlockFormat::kQ4_0:
    case BlockFormat::kQ4_1:
    case BlockFormat::kQ5_0:
    case BlockFormat::kQ5_1:
      return DecodeQ4Or5(blocks == BlockFormat::kQ4_1 || blocks == BlockFormat::kQ5_1,
                         blocks == BlockFormat::kQ5_0 || blocks == BlockFormat::kQ5_1, from, block);
    case BlockFormat::kQ2_K:
      return DecodeQ2_K(from, block);
    case BlockFormat::kQ3_K:
      return DecodeQ3_K(from, block);
    case BlockFormat::kQ4_K:
    case BlockFormat::kQ5_K:
      return DecodeQ4Or5_K(blocks == BlockFormat::kQ5_K, from, block);
    case BlockFormat::kQ6_K:
      return DecodeQ6_K(from, block);
    case BlockFormat::kMxfp4:
      return DecodeMxfp4(from, block);
  }
  Check(false, "DecodeBlock: not a quantised format");
}

void DequantizeRow(BlockFormat blocks, const void* row, int64_t cols, float* values) {
  VisitBlocks(blocks, [&]<class Traits>(Traits) {
    DecodedBlock block;
    for (int64_t begin = 0; begin < cols; begin += Traits::kSuper) {
      DecodeBlock(blocks, row, begin / Traits::kSuper, &block);
      const float d = HalfOf<Traits>(block.d), dmin = HalfOf<Traits>(block.dmin);
      for (int64_t i = 0; i < std::min<int64_t>(Traits::kSuper, cols - begin); ++i) {
        const int64_t group = i / Traits::kGroup;
        const float value = d * static_cast<float>(block.scales[group]) *
                            static_cast<float>(ValueOf<Traits>(block.codes[i]) - Traits::kOffset);
        values[begin + i] = Traits::kHasMin ? value - dmin * static_cast<float>(block.mins[group]) : value;
      }
    }
  });
}

int64_t FindBadScale(BlockFormat blocks, const void* row, int64_t cols) {
  const BlockInfo info = InfoOf(blocks);
  const ScalePlace place = ScalePlaceOf(blocks);
  const auto* block = static_cast<const uint8_t*>(row);
  const auto is_finite = [&](int at) {
    return (block[at + 1] & 0x7c) != 0x7c;
  };  // of a half: not all exponent bits set
  for (int64_t i = 0; i < NumBlocks(blocks, cols); ++i, block += info.bytes) {
    const bool is_good = blocks == BlockFormat::kMxfp4
                             ? block[0] != 255
                             : is_finite(place.d) && (place.dmin < 0 || is_finite(place.dmin));
    if (!is_good) return i;
  }
  return -1;
}

void QuantizeRow(BlockFormat blocks, const float* values, int64_t cols, void* row) {
  Check(blocks == BlockFormat::kQ8_0 || blocks == BlockFormat::kQ4_0, "QuantizeRow: format");
  const bool is_int8 = blocks == BlockFormat::kQ8_0;
  constexpr int kLen = 32;
  auto* to = static_cast<uint8_t*>(row);
  for (int64_t begin = 0; begin < cols; begin += kLen, to += InfoOf(blocks).bytes) {
    float group[kLen] = {};
    std::copy_n(values + begin, std::min<int64_t>(kLen, cols - begin), group);
    float largest = 0;  // in magnitude, with its sign
    for (const float value : group) largest = std::abs(value) > std::abs(largest) ? value : largest;
    const float wanted = std::clamp(is_int8 ? std::abs(largest) / 127 : largest / -8, -65504.0f, 65504.0f);
    const Float16 half = ToFloat16(wanted);
    const float d = ToFloat(half);
    const float inverse = d == 0 ? 0 : 1 / d;
    to[0] = static_cast<uint8_t>(half.bits);
    to[1] = static_cast<uint8_t>(half.bits >> 8);
    const auto code = [&](int i, float low, float high) {
      return static_cast<int>(std::clamp(std::nearbyint(group[i] * inverse), low, high));
    };
    if (is_int8) {
      for (int i = 0; i < kLen; ++i) to[2 + i] = static_cast<uint8_t>(code(i, -127, 127));
    } else {
      for (int i = 0; i < 16; ++i)
        to[2 + i] = static_cast<uint8_t>((code(i, -8, 7) + 8) | (code(i + 16, -8, 7) + 8) << 4);
    }
  }
}

}  // namespace quire
