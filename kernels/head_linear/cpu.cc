#include <algorithm>
#include <cstdint>

#include "kernels/check.h"
#include "kernels/cpu/parallel.h"
#include "kernels/head_linear/impl.h"

namespace quire {
namespace {

// Multiply-adds from which it pays to wake the workers (see kernels/linear/cpu.cc).
constexpr int64_t kParallelMultiplyAdds = int64_t{192} << 10;

// Bytes of a worker's scratch: x and y of kMaxLinearRows rows of one head.
int64_t WorkerBytes(int64_t n, int64_t k) { return (kMaxLinearRows * (n + k) * 4 + 63) / 64 * 64; }

// y of one head for the rows [begin, end), at most kMaxLinearRows.
void HeadRows(const HeadLinearArgs& args, const CpuKernels& kernels, int32_t head, int64_t begin, int64_t end,
              char* scratch) {
  const LinearWeight& w = args.weights[head];
  const int64_t element = static_cast<int64_t>(DTypeBytes(w.dtype));
  char* const x = scratch;
  float* const y = reinterpret_cast<float*>(scratch + kMaxLinearRows * w.k * 4);
  for (int64_t r = begin; r < end; ++r) {
    kernels.convert[static_cast<int>(w.dtype)](args.x.Row<float>(r) + head * args.x_head_stride, w.k,
                                               x + (r - begin) * w.k * element);
  }
  const LinearOperands operands = {x, w.k, w.data.data(), nullptr, y, w.n, w.n, w.k, false};
  const int64_t panels = (w.n + kPanelRows - 1) / kPanelRows;
  for (int64_t panel = 0; panel < panels; ++panel) {
    kernels.linear[static_cast<int>(w.dtype)](operands, panel, 0, end - begin);
  }
  for (int64_t r = begin; r < end; ++r) {
    kernels.convert[static_cast<int>(args.y.dtype)](y + (r - begin) * w.n, w.n,
                                                    args.y.Rows(r, 1).Cols(head * args.y_head_stride, w.n).data);
  }
}

}  // namespace

size_t CpuHeadLinearWorkspaceBytes(const WorkspaceShape& shape, int num_threads) {
  if (shape.latent_heads == 0) return 0;
  return static_cast<size_t>(num_threads * WorkerBytes(shape.head_linear_dim, shape.head_linear_dim));
}

void CpuHeadLinear(const HeadLinearArgs& args, const CpuKernels& kernels, ThreadPool& pool,
                   absl::Span<char> workspace) {
  const int64_t rows = args.x.rows, n = args.weights[0].n, k = args.weights[0].k;
  const int workers = rows * args.num_heads * n * k >= kParallelMultiplyAdds ? pool.num_threads() : 1;
  Check(workers * WorkerBytes(n, k) <= static_cast<int64_t>(workspace.size()), "HeadLinear beyond its workspace");
  const int64_t groups = (rows + kMaxLinearRows - 1) / kMaxLinearRows;
  const auto work = [&](int worker) {
    const Share share = ShareOf(args.num_heads * groups, worker, workers);
    for (int64_t item = share.begin; item < share.end; ++item) {
      const int64_t group = item % groups;
      HeadRows(args, kernels, static_cast<int32_t>(item / groups), rows * group / groups, rows * (group + 1) / groups,
               workspace.data() + worker * WorkerBytes(n, k));
    }
  };
  if (workers > 1) {
    pool.Run(work);
  } else {
    work(0);
  }
}

}  // namespace quire
