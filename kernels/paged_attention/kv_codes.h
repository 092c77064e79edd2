// One code of a record of a quantised KV cache (kv_record.h): the arithmetic, the same on a host and on a device, bit
// by bit where products and sums are not contracted.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_KV_CODES_H_
#define QUIRE_KERNELS_PAGED_ATTENTION_KV_CODES_H_

#include <bit>
#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/paged_attention/paged_kv.h"

namespace quire::kv {

// The largest code.
constexpr float MaxCode(KvQuantization quantization) {
  return quantization == KvQuantization::kFp8E4M3 ? 448 : quantization == KvQuantization::kInt8 ? 127 : 7;
}

// |x| as an integer: the order of the bits is that of the sizes, and a NaN is larger than all numbers.
constexpr uint32_t SizeBits(float x) { return std::bit_cast<uint32_t>(x) & 0x7fffffffu; }

// Neither an infinity nor a NaN.
constexpr bool IsFinite(float x) { return SizeBits(x) < 0x7f800000u; }

// The scale of a record whose largest |x| has these bits: the least bfloat16 that takes it to a code. NaN of a NaN, and
// an infinity stays one.
constexpr uint16_t ScaleBits(KvQuantization quantization, uint32_t largest_bits) {
  const float scale = std::bit_cast<float>(largest_bits) / MaxCode(quantization);
  const uint32_t bits = std::bit_cast<uint32_t>(scale);
  if (!IsFinite(scale)) return static_cast<uint16_t>(bits >> 16 | (SizeBits(scale) > 0x7f800000u ? 0x40 : 0));
  return static_cast<uint16_t>((bits + 0xffffu) >> 16);
}
constexpr float Scale(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

// Whether a record of this scale has codes other than 0.
constexpr bool HasCodes(float scale) { return scale > 0 && IsFinite(scale); }

// To nearest, ties to even, for |x| < 2^22: the ulp of the sum is 1.
constexpr float Round(float x) { return (x + 0x1.8p+23f) - 0x1.8p+23f; }

// E4M3 (OCP 8-bit floating point, 2023) of x, |x| <= 448.
constexpr uint8_t ToFp8(float x) {
  const uint32_t sign = std::bit_cast<uint32_t>(x) >> 24 & 0x80, size = SizeBits(x);
  constexpr int kDropped = 23 - 3;                                    // bits of the mantissa
  constexpr uint32_t kRebias = (127 - 7) << 3;                        // of the exponent
  if (const float abs = std::bit_cast<float>(size); abs < 0x1p-6f) {  // subnormal: steps of 2^-9; the eighth is 2^-6
    return static_cast<uint8_t>(sign | static_cast<uint32_t>(Round(abs * 0x1p+9f)));
  }
  const uint32_t rounded = size + ((1u << (kDropped - 1)) - 1) + (size >> kDropped & 1);  // may carry into the exponent
  return static_cast<uint8_t>(sign | ((rounded >> kDropped) - kRebias));
}

// REQUIRES: no code of NaN (0x7f, 0xff).
constexpr float FromFp8(uint8_t code) {
  const uint32_t sign = uint32_t{code & 0x80u} << 24;
  const float normal = std::bit_cast<float>((uint32_t{code & 0x7fu} << 20) + (120u << 23));  // bias 7 becomes 127
  const float size = (code & 0x78) != 0 ? normal : static_cast<float>(code & 7) * 0x1p-9f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(size) | sign);
}

// The code of x, in the low bits; at most the largest, as x / scale is but for its rounding. REQUIRES: HasCodes(scale).
constexpr uint8_t ToCode(KvQuantization quantization, float x, float scale) {
  if (quantization == KvQuantization::kFp8E4M3) return ToFp8(x / scale);
  const auto code = static_cast<uint8_t>(static_cast<int8_t>(Round(x / scale)));
  return quantization == KvQuantization::kInt4 ? code & 15 : code;
}

// The code of `dim` in a record.
constexpr float FromRecord(KvQuantization quantization, const char* record, int32_t dim) {
  const auto byte = static_cast<uint8_t>(record[quantization == KvQuantization::kInt4 ? dim / 2 : dim]);
  switch (quantization) {
    case KvQuantization::kFp8E4M3:
      return FromFp8(byte);
    case KvQuantization::kInt8:
      return static_cast<float>(static_cast<int8_t>(byte));
    case KvQuantization::kInt4:
      return static_cast<float>(((dim % 2 == 0 ? byte & 15 : byte >> 4) ^ 8) - 8);
    case KvQuantization::kNone:
      break;
  }
  return 0;
}

}  // namespace quire::kv

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_KV_CODES_H_
