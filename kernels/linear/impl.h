// The implementations of Linear behind the backends, and the packed form of its weights. Included by backends and
// tests.
//
// On `ref` a weight is the plain row-major matrix [n, k]. On `cpu` it is panels of kPanelRows rows of W, the last panel
// padded with zeroes, so that a row of W is a SIMD lane and a panel is one stream of memory:
//
//   bfloat16:           [ceil(n / 64)][ceil(k / 2)][64][2]    two neighbours in k side by side, as vdpbf16ps takes them
//   float16, float32:   [ceil(n / 64)][k][64]
//
// Every y[r, j] is one chain of additions over rising k; lanes and independent chains come from n and from rows. So it
// has the same bits whatever the number of rows, their split into tiles, or the workers.

#ifndef QUIRE_KERNELS_LINEAR_IMPL_H_
#define QUIRE_KERNELS_LINEAR_IMPL_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/linear/linear.h"

namespace quire {

void RefPackLinear(absl::Span<const MatrixSource> parts, WeightFormat format, void* packed);
void RefLinear(const LinearArgs& args);

constexpr int64_t NumPanels(int64_t n) { return (n + kPanelRows - 1) / kPanelRows; }

// Elements of one panel.
constexpr int64_t PanelElements(int64_t k, DType dtype) {
  return kPanelRows * (dtype == DType::kBFloat16 ? (k + 1) / 2 * 2 : k);
}

// Index in its panel of W[panel * kPanelRows + lane, k].
constexpr int64_t PanelIndex(int64_t lane, int64_t k, DType dtype) {
  return dtype == DType::kBFloat16 ? (k / 2 * kPanelRows + lane) * 2 + k % 2 : k * kPanelRows + lane;
}

// REQUIRES: `packed` is NumPanels(n) * PanelElements(k, dtype) zeroed elements.
void CpuPackLinear(absl::Span<const MatrixSource> parts, WeightFormat format, ThreadPool& pool, void* packed);
void CpuLinear(const LinearArgs& args, const CpuKernels& kernels, ThreadPool& pool);

}  // namespace quire

#endif  // QUIRE_KERNELS_LINEAR_IMPL_H_
