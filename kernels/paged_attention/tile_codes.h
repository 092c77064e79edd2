// Tiles of a quantised cache (kv_record.h), brought into what the kernels of bfloat16 read: codes are exact in it, and
// scales stay apart. Included by tile_body.h alone.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_TILE_CODES_H_
#define QUIRE_KERNELS_PAGED_ATTENTION_TILE_CODES_H_

#include <cstdint>

#include "kernels/paged_attention/tile.h"

namespace quire::attention {
namespace {

[[gnu::always_inline]] inline float FloatOf(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
[[gnu::always_inline]] inline uint32_t BitsOf(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}
// What fits into a bfloat16 as one.
[[gnu::always_inline]] inline uint16_t UpperHalf(float value) { return static_cast<uint16_t>(BitsOf(value) >> 16); }

// Plain loops, for the compiler to vectorise.
inline void ExpandInt8(const char* codes, int32_t dims, uint16_t* to) {
  for (int32_t d = 0; d < dims; ++d) to[d] = UpperHalf(static_cast<float>(static_cast<int8_t>(codes[d])));
}

inline void ExpandInt4(const char* codes, int32_t dims, uint16_t* to) {
  for (int32_t pair = 0; pair < dims / 2; ++pair) {
    const int32_t byte = static_cast<int8_t>(codes[pair]);
    to[2 * pair] = UpperHalf(static_cast<float>(((byte & 15) ^ 8) - 8));
    to[2 * pair + 1] = UpperHalf(static_cast<float>(byte >> 4));
  }
}

inline void ExpandFp8(const char* codes, int32_t dims, uint16_t* to) {
  for (int32_t d = 0; d < dims; ++d) {
    const uint32_t code = static_cast<uint8_t>(codes[d]);
    const float normal = FloatOf(((code & 0x7f) << 20) + (120u << 23));  // exponent bias 7 becomes 127
    const float subnormal = static_cast<float>(static_cast<int32_t>(code & 7)) * 0x1p-9f;
    const uint32_t bits = BitsOf((code & 0x78) != 0 ? normal : subnormal) | (code & 0x80) << 24;
    to[d] = static_cast<uint16_t>(bits >> 16);
  }
}

inline void Expand(const AttentionRecords& records, const char* const* octets, const char* const* next, float* scales,
                   char* rows) {
  const int32_t bytes = records.record_bytes, dims = records.head_dim;
  for (int32_t slot = 0; slot < records.num_slots; ++slot) {
    const int32_t octet = slot / kOctet, at = slot % kOctet * bytes;
    const char* record = octets[octet] + at;
    for (int32_t line = 0; line < bytes; line += 64) __builtin_prefetch(next[octet] + at + line);
    uint16_t* const row = reinterpret_cast<uint16_t*>(rows) + int64_t{slot} * dims;
    if (records.quantization == 1) {
      ExpandFp8(record, dims, row);
    } else if (records.quantization == 2) {
      ExpandInt8(record, dims, row);
    } else {
      ExpandInt4(record, dims, row);
    }
    uint16_t scale;
    __builtin_memcpy(&scale, record + bytes - 2, sizeof scale);
    scales[slot] = FloatOf(uint32_t{scale} << 16);
  }
}

}  // namespace
}  // namespace quire::attention

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_TILE_CODES_H_
