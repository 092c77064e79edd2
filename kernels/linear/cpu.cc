#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/cpu/parallel.h"
#include "kernels/linear/impl.h"

namespace quire {
namespace {

// Multiply-adds from which it pays to wake the workers: two microseconds of weights in L2 for one row, five times what
// a Run costs.
constexpr int64_t kParallelMultiplyAdds = int64_t{192} << 10;

// Elements of k that PackPanel moves at once: 64 rows of them, read and written, stay in L1.
constexpr int64_t kPackCols = 64;

template <class T>
T Convert(float value) {
  if constexpr (std::is_same_v<T, BFloat16>) return ToBFloat16(value);
  if constexpr (std::is_same_v<T, Float16>) return ToFloat16(value);
  if constexpr (std::is_same_v<T, float>) return value;
}

// Elements [begin, begin + count) of a row of `part`, as T.
template <class T>
void LoadRow(const Tensor& part, DType dtype, int64_t row, int64_t begin, int64_t count, T* to) {
  const int64_t at = row * part.row_stride + begin;
  if (part.dtype == dtype) {
    std::memcpy(to, static_cast<const T*>(part.data) + at, static_cast<size_t>(count) * sizeof(T));
    return;
  }
  for (int64_t i = 0; i < count; ++i) to[i] = Convert<T>(LoadFloat(part.data, part.dtype, at + i));
}

// Where row `row` of the stacked parts lies.
struct SourceRow {
  const Tensor* part;
  int64_t row;
};
SourceRow FindRow(absl::Span<const Tensor> parts, int64_t row) {
  const Tensor* part = parts.data();
  while (row >= part->rows) row -= (part++)->rows;
  return {part, row};
}

template <class T>
void PackPanel(absl::Span<const Tensor> parts, DType dtype, int64_t n, int64_t panel, T* packed) {
  const int64_t k = parts[0].cols;
  T* const to = packed + panel * PanelElements(k, dtype);
  const int64_t lanes = std::min(kPanelRows, n - panel * kPanelRows);
  for (int64_t begin = 0; begin < k; begin += kPackCols) {
    const int64_t count = std::min(kPackCols, k - begin);
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const SourceRow source = FindRow(parts, panel * kPanelRows + lane);
      T values[kPackCols];
      LoadRow(*source.part, dtype, source.row, begin, count, values);
      for (int64_t i = 0; i < count; ++i) to[PanelIndex(lane, begin + i, dtype)] = values[i];
    }
  }
}

}  // namespace

void CpuPackLinear(absl::Span<const Tensor> parts, DType dtype, ThreadPool& pool, void* packed) {
  int64_t n = 0;
  for (const Tensor& part : parts) n += part.rows;
  // The split of CpuLinear: pages lie in the memory of the worker that will read them.
  pool.Run([&](int worker) {
    const Share share = ShareOf(NumPanels(n), worker, pool.num_threads());
    for (int64_t panel = share.begin; panel < share.end; ++panel) {
      switch (dtype) {
        case DType::kFloat32:
          PackPanel(parts, dtype, n, panel, static_cast<float*>(packed));
          break;
        case DType::kBFloat16:
          PackPanel(parts, dtype, n, panel, static_cast<BFloat16*>(packed));
          break;
        case DType::kFloat16:
          PackPanel(parts, dtype, n, panel, static_cast<Float16*>(packed));
          break;
      }
    }
  });
}

void CpuLinear(const LinearArgs& args, const CpuKernels& kernels, ThreadPool& pool) {
  const LinearWeight& w = *args.weight;
  const LinearOperands operands = {args.x.data,
                                   args.x.row_stride,
                                   w.data.data(),
                                   args.bias,
                                   static_cast<float*>(args.y.data),
                                   args.y.row_stride,
                                   w.n,
                                   w.k,
                                   args.accumulate};
  const auto kernel = kernels.linear[static_cast<int>(w.dtype)];
  const int64_t panels = NumPanels(w.n), rows = args.x.rows;
  const bool parallel = rows * w.n * w.k >= kParallelMultiplyAdds;
  const int workers = parallel ? pool.num_threads() : 1;

  // Panels times groups of rows, rows innermost: a worker reads its panels one after another, each once from memory.
  // Rows are split beyond kMaxLinearRows only where the panels alone would leave workers idle.
  int64_t groups = (rows + kMaxLinearRows - 1) / kMaxLinearRows;
  constexpr int64_t kMinGroupRows = 12, kItemsPerWorker = 8;
  if (workers > 1 && panels * groups < workers * kItemsPerWorker) {
    groups = std::max(groups, std::min(rows / kMinGroupRows, (workers * kItemsPerWorker + panels - 1) / panels));
  }
  auto work = [&](int worker) {
    const Share share = ShareOf(panels * groups, worker, workers);
    for (int64_t item = share.begin; item < share.end; ++item) {
      const int64_t group = item % groups;
      kernel(operands, item / groups, rows * group / groups, rows * (group + 1) / groups);
    }
  };
  if (parallel) {
    pool.Run(work);
  } else {
    work(0);
  }
}

}  // namespace quire
