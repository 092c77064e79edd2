#include <algorithm>

#include "kernels/cpu/parallel.h"
#include "kernels/linear/impl.h"

namespace quire {
namespace {

// Multiply-adds from which it pays to wake the workers: two microseconds of weights in L2 for one row, five times what
// a Run costs.
constexpr int64_t kParallelMultiplyAdds = int64_t{192} << 10;

}  // namespace

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
