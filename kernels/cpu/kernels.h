// CpuKernels: the inner loops of the CPU backend, one table of them for each instruction set.
//
// The functions take plain pointers and numbers: they are compiled with instructions that not every machine has, and an
// inline function of a shared header that one of them used could be taken by the linker for everybody (see
// kernels/CMakeLists.txt). For the same reason this header includes nothing with code in it. Element types are indices:
// that of a DType's value.

#ifndef QUIRE_KERNELS_CPU_KERNELS_H_
#define QUIRE_KERNELS_CPU_KERNELS_H_

#include <cstdint>

#include "kernels/activation/activation_kind.h"
#include "kernels/gated_activation/gate.h"

namespace quire {

// A packed weight is panels of this many rows of W, the last one padded with zeroes; a panel's rows are SIMD lanes.
constexpr int64_t kPanelRows = 64;

// Most rows of x for one call of a linear kernel: 16 full tiles of 6, whose sums (24 KB) are kept in L1 from one part
// of k to the next.
constexpr int64_t kMaxLinearRows = 96;

struct LinearOperands {
  const void* x;  // [rows, k] of the weight's element type, rows x_stride elements apart
  int64_t x_stride;
  const void* weight;  // ceil(n / kPanelRows) panels, layout: kernels/linear/impl.h
  const float* bias;   // [n], or nullptr
  float* y;            // [rows, n], rows y_stride elements apart
  int64_t y_stride;
  int64_t n;
  int64_t k;
  bool accumulate;
};

struct CpuKernels {
  // y[r, j] for the rows of [row_begin, row_end), kMaxLinearRows at most, and j of one panel.
  void (*linear[3])(const LinearOperands& operands, int64_t panel, int64_t row_begin, int64_t row_end);

  // One row; y is of the table index's type, that of rms_norm_add is float32 and is added to. See the headers of the
  // operations.
  void (*rms_norm[3])(const float* x, const float* weight, float epsilon, int64_t cols, void* y);
  void (*rms_norm_add)(const float* x, const float* weight, float epsilon, int64_t cols, void* y);
  void (*layer_norm[3])(const float* x, const float* weight, const float* bias, float epsilon, int64_t cols, void* y);
  void (*gated_activation[3])(const Gate& gate, const float* g, const float* u, int64_t cols, void* y);
  void (*activation[3])(ActivationKind kind, float cap, const float* x, int64_t cols, void* y);

  // out_a = a cos - b sin, out_b = b cos + a sin, elements 0 .. n - 1. The outputs may be the inputs.
  void (*rotate)(const float* a, const float* b, const float* cos, const float* sin, int64_t n, float* out_a,
                 float* out_b);

  // y += scale * x, n elements.
  void (*add_scaled)(const float* x, float scale, int64_t n, float* y);

  // Rounds n elements to nearest, ties to even.
  void (*convert[3])(const float* x, int64_t n, void* y);

  // Multiplies and adds in registers and L1 as linear[kBFloat16] does; returns the number of floating-point operations.
  int64_t (*multiply_adds)(int64_t iterations);
};

// Each may be called only if SupportedCpuIsas() names its instruction set. The x86 ones exist only in x86-64 builds.
const CpuKernels& PortableKernels();
const CpuKernels& Avx2Kernels();
const CpuKernels& Avx512Kernels();
const CpuKernels& Avx512Bf16Kernels();

}  // namespace quire

#endif  // QUIRE_KERNELS_CPU_KERNELS_H_
