// Rows of quantised weights as files store them: what number each code stands for, and back.

#ifndef QUIRE_KERNELS_LINEAR_BLOCKS_H_
#define QUIRE_KERNELS_LINEAR_BLOCKS_H_

#include <cstdint>

#include "kernels/linear/weight_format.h"

namespace quire {

// A super-block, taken apart; see block_format.h for what the parts mean. For formats without scales of their own for
// each group, scale and min are 1.
struct DecodedBlock {
  static constexpr int kMaxLen = 256;

  uint8_t codes[kMaxLen];
  int8_t scales[kMaxLen / 16];
  int8_t mins[kMaxLen / 16];
  // d and dmin, as 16 bits: IEEE half, for MXFP4 bfloat16. The sign of dmin is such that it is subtracted.
  uint16_t d;
  uint16_t dmin;
};

// Takes block `index` of a row apart.
void DecodeBlock(BlockFormat blocks, const void* row, int64_t index, DecodedBlock* block);

// The definition: `cols` elements of a row, as float32. Rounded after each operation.
void DequantizeRow(BlockFormat blocks, const void* row, int64_t cols, float* values);

// The first block of a row whose scale or minimum is no finite number (E8M0's 255 stands for none); -1 where all are.
int64_t FindBadScale(BlockFormat blocks, const void* row, int64_t cols);

// Quantises a row, symmetric, in groups of 32: kQ8_0 takes d = max |w| / 127 as a half, codes round(w / d); kQ4_0 takes
// d = m / -8, m the element of largest magnitude. A group whose d would be no half above zero becomes zeroes; one whose
// d would exceed the range is clamped. REQUIRES: blocks is kQ8_0 or kQ4_0.
void QuantizeRow(BlockFormat blocks, const float* values, int64_t cols, void* row);

}  // namespace quire

#endif  // QUIRE_KERNELS_LINEAR_BLOCKS_H_
