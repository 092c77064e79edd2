#include "kernels/activation/impl.h"
#include "kernels/cpu/parallel.h"

namespace quire {

void CpuActivation(const ActivationArgs& args, const CpuKernels& kernels, ThreadPool& pool) {
  const auto row_kernel = kernels.activation[static_cast<int>(args.y.dtype)];
  ParallelRows(pool, args.y.rows, args.y.cols, [&](int64_t row) {
    row_kernel(args.kind, args.cap, args.x.Row<float>(row), args.y.cols, args.y.Rows(row, 1).data);
  });
}

}  // namespace quire
