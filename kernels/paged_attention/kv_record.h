// A record of a quantised KV cache: K, or V, of one token and head. Written by `ref` and `cpu` alike; read here element
// by element, which is the definition, and by `cpu` in whole tiles (tile_codes.h).
//
//   [codes of dims 0 .. head_dim - 1][scale: bfloat16]        element = code * scale, exact in float32
//
//   int8        a byte, -127 .. 127
//   int4        half a byte, -7 .. 7, two's complement; the even dim in the low half
//   fp8_e4m3    a byte of E4M3 (OCP 8-bit floating point, 2023), -448 .. 448
//
// With m the largest |x| of the record: scale = m / (largest code), rounded up to a bfloat16; code = x / scale rounded
// to nearest, ties to even. So |x - element| <= scale / 2 of integers, and <= max(|x| / 16, scale / 1024) of fp8. Where
// a scale is zero or not finite all codes are zero: zeros stay zeros, an infinity or NaN makes every element NaN.
// A record is a function of its own K or V alone.
//
// Example, int8, x = [127, -63.5, 1.4]: scale 1, codes 127, -64 (ties to even), 1.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_KV_RECORD_H_
#define QUIRE_KERNELS_PAGED_ATTENTION_KV_RECORD_H_

#include <cstdint>

#include "kernels/paged_attention/paged_kv.h"

namespace quire {

// Writes KvHeadBytes() to `record`. REQUIRES: `quantization` is not kNone.
void WriteKvRecord(KvQuantization quantization, const float* x, int32_t head_dim, char* record);

// Element `dim`.
float LoadKvRecord(KvQuantization quantization, const char* record, int32_t head_dim, int32_t dim);

}  // namespace quire

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_KV_RECORD_H_
