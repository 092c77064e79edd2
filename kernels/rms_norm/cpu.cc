#include "kernels/cpu/parallel.h"
#include "kernels/rms_norm/impl.h"

namespace quire {

void CpuRmsNorm(const RmsNormArgs& args, const CpuKernels& kernels, ThreadPool& pool) {
  const auto row_kernel = args.accumulate ? kernels.rms_norm_add : kernels.rms_norm[static_cast<int>(args.y.dtype)];
  const int64_t hidden = args.y.cols / args.heads;
  ParallelRows(pool, args.y.rows, args.y.cols, [&](int64_t row) {
    const int64_t from = args.rows != nullptr ? args.rows[row] : row;
    const Tensor y = args.y.Rows(row, 1);
    for (int64_t begin = 0; begin < args.y.cols; begin += hidden) {
      row_kernel(args.x.Row<float>(from) + begin, args.weight, args.epsilon, hidden, y.Cols(begin, hidden).data);
    }
  });
}

}  // namespace quire
