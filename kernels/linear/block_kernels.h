// Linear over quantised weights, compiled for each instruction set with integer dot products. Included by files of
// every instruction set: no code here.

#ifndef QUIRE_KERNELS_LINEAR_BLOCK_KERNELS_H_
#define QUIRE_KERNELS_LINEAR_BLOCK_KERNELS_H_

#include <cstdint>

#include "kernels/linear/block_format.h"

namespace quire {

// Rows of x as int8, quantised in blocks of 32: x = scale * q, |q| <= 127. Beyond k, q is 0 up to the next multiple of
// kPadding.
struct QuantizedRows {
  static constexpr int64_t kPadding = 256;  // of the widest super-block

  int8_t* q;       // [rows][stride]
  float* scales;   // [rows][stride / 32]
  int32_t* sums;   // [rows][stride / 16]: sum of sixteen q
  int64_t stride;  // k, padded
};

struct BlockOperands {
  QuantizedRows x;
  const void* weight;  // panels, layout: kernels/linear/block_format.h
  int64_t num_supers;  // of a panel
  const float* bias;   // [n], or nullptr
  float* y;            // [rows, n], rows y_stride elements apart
  int64_t y_stride;
  int64_t n;
  bool accumulate;
};

struct BlockKernels {
  // y[r, j] for the rows of [row_begin, row_end), kMaxLinearRows at most, and j of one panel. By BlockFormat.
  void (*panel[kNumBlockFormats])(const BlockOperands& operands, int64_t panel, int64_t row_begin, int64_t row_end);
  // Quantises row `row` of x, `k` elements. By DType.
  void (*quantize[3])(const void* x, int64_t k, const QuantizedRows& to, int64_t row);
};

// Each may be called only where the CPU has what its name says. The x86 ones exist only in x86-64 builds.
const BlockKernels& PortableBlockKernels();
const BlockKernels& Avx2BlockKernels();
const BlockKernels& Avx512VnniBlockKernels();

}  // namespace quire

#endif  // QUIRE_KERNELS_LINEAR_BLOCK_KERNELS_H_
