#include "kernels/paged_attention/kv_record.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/check.h"
#include "kernels/dtype.h"

namespace quire {
namespace {

constexpr float kMaxFp8 = 448, kMaxInt8 = 127, kMaxInt4 = 7;

float MaxCode(KvQuantization quantization) {
  switch (quantization) {
    case KvQuantization::kFp8E4M3:
      return kMaxFp8;
    case KvQuantization::kInt8:
      return kMaxInt8;
    case KvQuantization::kInt4:
      return kMaxInt4;
    case KvQuantization::kNone:
      break;
  }
  Check(false, "a cache without codes");
  return 0;
}

// The largest |x|, a NaN counting as larger than all numbers: the order of the bits is that of the sizes.
float LargestSize(const float* x, int32_t n) {
  int32_t largest = 0;
  for (int32_t i = 0; i < n; ++i) largest = std::max(largest, std::bit_cast<int32_t>(x[i]) & 0x7fffffff);
  return std::bit_cast<float>(largest);
}

// The least bfloat16 that is not below `value`. REQUIRES: value >= 0, or NaN.
BFloat16 RoundUp(float value) {
  if (!std::isfinite(value)) return ToBFloat16(value);
  return {static_cast<uint16_t>((std::bit_cast<uint32_t>(value) + 0xffffu) >> 16)};
}

// To nearest, ties to even, for |x| < 2^22: the ulp of the sum is 1.
float Round(float x) { return (x + 0x1.8p+23f) - 0x1.8p+23f; }

// REQUIRES: |x| <= 448.
uint8_t ToFp8(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), sign = bits >> 24 & 0x80;
  const uint32_t size = bits & 0x7fffffffu;
  constexpr int kDropped = 23 - 3;              // bits of the mantissa
  constexpr uint32_t kRebias = (127 - 7) << 3;  // of the exponent
  if (std::fabs(x) < 0x1p-6f) {                 // subnormal: steps of 2^-9; the eighth is 2^-6
    return static_cast<uint8_t>(sign | static_cast<uint32_t>(Round(std::fabs(x) * 0x1p+9f)));
  }
  const uint32_t rounded = size + ((1u << (kDropped - 1)) - 1) + (size >> kDropped & 1);  // may carry into the exponent
  return static_cast<uint8_t>(sign | ((rounded >> kDropped) - kRebias));
}

float FromFp8(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                   : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return (code & 0x80) != 0 ? -size : size;
}

// At most the largest code, as x / scale is but for its rounding.
int32_t ToInteger(float x, float scale) { return static_cast<int32_t>(Round(x / scale)); }

}  // namespace

void WriteKvRecord(KvQuantization quantization, const float* x, int32_t head_dim, char* record) {
  const float largest = LargestSize(x, head_dim);
  const BFloat16 scale_bits = RoundUp(largest / MaxCode(quantization));
  const float scale = ToFloat(scale_bits);
  const int64_t code_bytes = KvHeadBytes(DType::kBFloat16, quantization, head_dim) - int64_t{sizeof scale_bits};
  std::memcpy(record + code_bytes, &scale_bits, sizeof scale_bits);
  if (!(scale > 0) || !std::isfinite(scale)) {
    std::memset(record, 0, static_cast<size_t>(code_bytes));
    return;
  }
  switch (quantization) {
    case KvQuantization::kInt8:
      for (int32_t d = 0; d < head_dim; ++d) record[d] = static_cast<char>(ToInteger(x[d], scale));
      return;
    case KvQuantization::kInt4:
      for (int32_t d = 0; d < head_dim; d += 2) {
        record[d / 2] = static_cast<char>((ToInteger(x[d], scale) & 15) | ToInteger(x[d + 1], scale) * 16);
      }
      return;
    case KvQuantization::kFp8E4M3:
      for (int32_t d = 0; d < head_dim; ++d) record[d] = static_cast<char>(ToFp8(x[d] / scale));
      return;
    case KvQuantization::kNone:
      return;
  }
}

float LoadKvRecord(KvQuantization quantization, const char* record, int32_t head_dim, int32_t dim) {
  BFloat16 scale;
  const int64_t code_bytes = KvHeadBytes(DType::kBFloat16, quantization, head_dim) - int64_t{sizeof scale};
  std::memcpy(&scale, record + code_bytes, sizeof scale);
  if (quantization == KvQuantization::kInt4) {
    const auto byte = static_cast<int8_t>(record[dim / 2]);
    const auto low = static_cast<int8_t>(static_cast<uint8_t>(byte) << 4);
    return static_cast<float>((dim % 2 == 0 ? low : byte) >> 4) * ToFloat(scale);
  }
  if (quantization == KvQuantization::kInt8)
    return static_cast<float>(static_cast<int8_t>(record[dim])) * ToFloat(scale);
  return FromFp8(static_cast<uint8_t>(record[dim])) * ToFloat(scale);
}

}  // namespace quire
