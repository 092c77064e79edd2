// Codes of a quantised cache (kv_record.h) as bfloat16, in which all of them are exact, by integer arithmetic on pairs.
//
// Not by the conversions of compute capability 8.9: they give float16, whose range the scales of V do not fit once they
// are in the weights; and three or four integer operations and a multiplication for two codes are no more than the
// conversion would be. Any byte gives a finite number: what lies in a tile beyond a context need not be cleared.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_CUDA_CODES_CUH_
#define QUIRE_KERNELS_PAGED_ATTENTION_CUDA_CODES_CUH_

#include "kernels/cuda/numbers.h"
#include "kernels/paged_attention/kv_codes.h"
#include "kernels/paged_attention/paged_kv.h"

namespace quire::cuda {

template <KvQuantization kQuantization>
struct Codes {
  static constexpr int kOfWord = kQuantization == KvQuantization::kInt4 ? 8 : 4;  // codes of 32 bits
  static constexpr int kPairs = kOfWord / 2;
  static constexpr int kScaleBytes = 2;

  static constexpr int CodeBytes(int32_t head_dim) { return head_dim * 4 / kOfWord; }
  static constexpr int RecordBytes(int32_t head_dim) { return CodeBytes(head_dim) + kScaleBytes; }

  // Codes m and m + kPairs of a word, the first in the low half.
  static QUIRE_DEVICE uint32_t Pair(uint32_t word, int m) {
    if constexpr (kQuantization == KvQuantization::kFp8E4M3) {
      // Sign, exponent and mantissa where bfloat16 has them; then the exponent's bias, 127 in place of 7.
      constexpr uint32_t kRebias = 0x7b807b80, kMinusZero = 0x80008000;  // 2^120
      const uint32_t sign = (m == 0 ? word << 8 : word) & 0x80008000;
      const uint32_t size = (m == 0 ? word << 4 : word >> 4) & 0x07f007f0;
      return MultiplyAddPair(sign | size, kRebias, kMinusZero);
    } else if constexpr (kQuantization == KvQuantization::kInt8) {
      // Seven bits are the mantissa of 128 + them; then less 128, or less 256 of a negative code.
      const uint32_t codes = m == 0 ? word : word >> 8;
      return MultiplyAddPair((codes & 0x007f007f) | 0x43004300, kOnes, (codes & 0x00800080) | 0xc300c300);
    } else {
      // 128 + (code + 8), less 136.
      return MultiplyAddPair(((word >> 4 * m) & 0x000f000f) ^ 0x43084308, kOnes, 0xc308c308);
    }
  }

 private:
  static constexpr uint32_t kOnes = 0x3f803f80;
};

QUIRE_DEVICE float ScaleAt(const char* scale) { return Load(reinterpret_cast<const BFloat16*>(scale)); }
QUIRE_DEVICE uint32_t WordAt(const char* word) { return *reinterpret_cast<const uint32_t*>(word); }

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_CUDA_CODES_CUH_
