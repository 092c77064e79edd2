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
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/linear/block_kernels.h"
#include "kernels/linear/linear.h"
#include "kernels/workspace.h"

namespace quire {

// Rows of stacked parts as `blocks`: parts stored so as they are, parts of numbers quantised.
class BlockRowReader {
 public:
  BlockRowReader(absl::Span<const MatrixSource> parts, BlockFormat blocks);
  void Read(int64_t row, std::byte* to);

 private:
  const absl::Span<const MatrixSource> parts_;
  const BlockFormat blocks_;
  std::vector<std::byte> stored_;
  std::vector<float> values_;
};

// The parts of a weight that its slabs hold, packed one after another by pack(parts of a slab, slab).
template <class Pack>
void ForEachSlab(absl::Span<const MatrixSource> parts, const std::vector<WeightSlab>& slabs, const Pack& pack) {
  size_t part = 0;
  for (const WeightSlab& slab : slabs) {
    const size_t first = part;
    for (int64_t rows = 0; rows < slab.rows; ++part) rows += parts[part].rows;
    pack(parts.subspan(first, part - first), slab);
  }
}

// REQUIRES: `packed` has the bytes of the parts' rows as `format`.
void RefPackLinear(absl::Span<const MatrixSource> parts, WeightFormat format, void* packed);
void RefPackBlocks(absl::Span<const MatrixSource> parts, BlockFormat blocks, void* packed);
void RefLinear(const LinearArgs& args);
// Row `row` of a packed weight, as float32.
void RefLoadRow(const LinearWeight& weight, int64_t row, float* values);

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

// The same of a quantised weight or one of slabs.
size_t CpuBlockBytes(int64_t n, int64_t k, BlockFormat blocks);
void CpuPackBlocks(absl::Span<const MatrixSource> parts, BlockFormat blocks, ThreadPool& pool, void* packed);
void CpuBlockLinear(const LinearArgs& args, const CpuKernels& kernels, const BlockKernels& block_kernels,
                    ThreadPool& pool, absl::Span<char> workspace);
size_t CpuLinearWorkspaceBytes(const WorkspaceShape& shape);
// set(i, value) for the elements of row `row`. REQUIRES: the weight has slabs.
void CpuLoadRow(const LinearWeight& weight, int64_t row, absl::FunctionRef<void(int64_t i, float value)> set);

// Memory for quantised rows of x, and its parts.
size_t QuantizedRowsBytes(int64_t rows, int64_t k);
QuantizedRows QuantizedRowsAt(char* memory, int64_t rows, int64_t k);

// The panels of a weight, those of its slabs one after another, as units of work.
class PanelsOf {
 public:
  // `x` is args.x, quantised.
  PanelsOf(const LinearArgs& args, const QuantizedRows& x, const CpuKernels& kernels, const BlockKernels& block_kernels)
      : args_(args), x_(x), kernels_(kernels), block_kernels_(block_kernels) {}

  static int64_t Count(const LinearWeight& weight);
  void Run(int64_t panel, int64_t row_begin, int64_t row_end) const;

 private:
  const LinearArgs& args_;
  const QuantizedRows x_;
  const CpuKernels& kernels_;
  const BlockKernels& block_kernels_;
};

}  // namespace quire

#endif  // QUIRE_KERNELS_LINEAR_IMPL_H_
