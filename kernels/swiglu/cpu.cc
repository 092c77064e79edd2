#include "kernels/cpu/parallel.h"
#include "kernels/swiglu/impl.h"

namespace quire {

void CpuSwiGlu(const SwiGluArgs& args, const CpuKernels& kernels, ThreadPool& pool) {
  const auto row_kernel = kernels.swiglu[static_cast<int>(args.y.dtype)];
  ParallelRows(pool, args.y.rows, args.y.cols * 2, [&](int64_t row) {
    const float* gate = args.gate_up.Row<float>(row);
    row_kernel(gate, gate + args.y.cols, args.y.cols, args.y.Rows(row, 1).data);
  });
}

}  // namespace quire
