#include "kernels/cpu/parallel.h"
#include "kernels/gated_activation/impl.h"

namespace quire {

void CpuGatedActivation(const GatedActivationArgs& args, const CpuKernels& kernels, ThreadPool& pool) {
  const auto row_kernel = kernels.gated_activation[static_cast<int>(args.y.dtype)];
  ParallelRows(pool, args.y.rows, args.y.cols * 2, [&](int64_t row) {
    const float* g = args.gate_up.Row<float>(row);
    row_kernel(args.gate, g, g + args.y.cols, args.y.cols, args.y.Rows(row, 1).data);
  });
}

}  // namespace quire
