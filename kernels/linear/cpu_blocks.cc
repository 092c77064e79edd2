// Linear over quantised weights on the CPU: rows of x become int8 in the workspace, then meet the panels.

#include <algorithm>

#include "kernels/check.h"
#include "kernels/cpu/parallel.h"
#include "kernels/linear/impl.h"

namespace quire {
namespace {

// Rows quantised at once: with so many the weights are read often enough from memory for it not to matter.
constexpr int64_t kMaxQuantizedRows = 512;

constexpr int64_t kParallelMultiplyAdds = int64_t{384} << 10;  // see kernels/linear/cpu.cc: these are twice as fast

int64_t PaddedCols(int64_t k) {
  return (k + QuantizedRows::kPadding - 1) / QuantizedRows::kPadding * QuantizedRows::kPadding;
}

}  // namespace

size_t QuantizedRowsBytes(int64_t rows, int64_t k) {
  return static_cast<size_t>(rows * PaddedCols(k) / 32 * (32 + 4 + 2 * 4));
}

QuantizedRows QuantizedRowsAt(char* memory, int64_t rows, int64_t k) {
  const int64_t stride = PaddedCols(k);
  QuantizedRows to;
  to.stride = stride;
  to.q = reinterpret_cast<int8_t*>(memory);
  to.scales = reinterpret_cast<float*>(memory + rows * stride);
  to.sums = reinterpret_cast<int32_t*>(memory + rows * stride + rows * stride / 32 * 4);
  return to;
}

size_t CpuLinearWorkspaceBytes(const WorkspaceShape& shape) {
  if (!shape.quantized_weights) return 0;
  return QuantizedRowsBytes(std::min(shape.max_rows, kMaxQuantizedRows), shape.max_cols);
}

void PanelsOf::Run(int64_t panel, int64_t row_begin, int64_t row_end) const {
  const LinearWeight& w = *args_.weight;
  const WeightSlab all = {.begin = 0, .rows = w.n, .blocks = BlockFormat::kNone, .offset = 0};
  const WeightSlab* slab = w.slabs.empty() ? &all : w.slabs.data();
  while (panel >= NumPanels(slab->rows)) panel -= NumPanels((slab++)->rows);
  const auto* const data = static_cast<const std::byte*>(w.data.data()) + slab->offset;
  const float* const bias = args_.bias != nullptr ? args_.bias + slab->begin : nullptr;
  float* const y = static_cast<float*>(args_.y.data) + slab->begin;
  if (slab->blocks == BlockFormat::kNone) {
    const LinearOperands operands = {args_.x.data, args_.x.row_stride, data, bias, y, args_.y.row_stride, slab->rows,
                                     w.k,          args_.accumulate};
    return kernels_.linear[static_cast<int>(w.dtype)](operands, panel, row_begin, row_end);
  }
  const BlockOperands operands = {
      x_, data, NumBlocks(slab->blocks, w.k), bias, y, args_.y.row_stride, slab->rows, args_.accumulate};
  block_kernels_.panel[static_cast<int>(slab->blocks)](operands, panel, row_begin, row_end);
}

int64_t PanelsOf::Count(const LinearWeight& weight) {
  if (weight.slabs.empty()) return NumPanels(weight.n);
  int64_t panels = 0;
  for (const WeightSlab& slab : weight.slabs) panels += NumPanels(slab.rows);
  return panels;
}

void CpuBlockLinear(const LinearArgs& args, const CpuKernels& kernels, const BlockKernels& block_kernels,
                    ThreadPool& pool, absl::Span<char> workspace) {
  const LinearWeight& w = *args.weight;
  const auto fit = static_cast<int64_t>(workspace.size() / QuantizedRowsBytes(1, w.k));
  Check(fit > 0, "Linear: a quantised weight wider than the workspace was planned for");
  const int64_t panels = PanelsOf::Count(w);
  for (int64_t begin = 0; begin < args.x.rows; begin += fit) {
    const int64_t rows = std::min(fit, args.x.rows - begin);
    LinearArgs slice = args;
    slice.x = args.x.Rows(begin, rows);
    slice.y = args.y.Rows(begin, rows);
    const QuantizedRows x = QuantizedRowsAt(workspace.data(), rows, w.k);
    ParallelRows(pool, rows, w.k, [&](int64_t row) {
      block_kernels.quantize[static_cast<int>(w.dtype)](slice.x.Rows(row, 1).data, w.k, x, row);
    });
    const PanelsOf work(slice, x, kernels, block_kernels);
    const int64_t groups = (rows + kMaxLinearRows - 1) / kMaxLinearRows;
    const int workers = rows * w.n * w.k >= kParallelMultiplyAdds ? pool.num_threads() : 1;
    const auto run = [&](int worker) {
      const Share share = ShareOf(panels * groups, worker, workers);
      for (int64_t item = share.begin; item < share.end; ++item) {
        const int64_t group = item % groups;
        work.Run(item / groups, rows * group / groups, rows * (group + 1) / groups);
      }
    };
    if (workers > 1) {
      pool.Run(run);
    } else {
      run(0);
    }
  }
}

}  // namespace quire
