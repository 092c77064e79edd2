#include "kernels/cpu/parallel.h"
#include "kernels/layer_norm/impl.h"

namespace quire {

void CpuLayerNorm(const LayerNormArgs& args, const CpuKernels& kernels, ThreadPool& pool) {
  const auto row_kernel = kernels.layer_norm[static_cast<int>(args.y.dtype)];
  ParallelRows(pool, args.y.rows, args.y.cols, [&](int64_t row) {
    const int64_t from = args.rows != nullptr ? args.rows[row] : row;
    row_kernel(args.x.Row<float>(from), args.weight, args.bias, args.epsilon, args.y.cols, args.y.Rows(row, 1).data);
  });
}

}  // namespace quire
