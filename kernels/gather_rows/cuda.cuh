// The kernel of kernels/gather_rows/cuda.h: a thread for each column, which goes down the rows in their order: no row
// is written before it was read.

#ifndef QUIRE_KERNELS_GATHER_ROWS_CUDA_CUH_
#define QUIRE_KERNELS_GATHER_ROWS_CUDA_CUH_

#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/gather_rows/cuda.h"

namespace quire::cuda {

template <typename T>
struct GatherRowsKernel {
  struct Params {
    T* x;  // [num_rows, cols], rows stride apart
    int64_t stride;
    int64_t cols;
    const int32_t* rows;  // [num_kept]
    int64_t num_kept;
  };
  static constexpr int kThreads = 64;
  static constexpr int kMinCtas = 4;
  static constexpr int kSharedBytes = 0;

  template <typename Thread>
  static QUIRE_DEVICE void Run(const Thread& thread, const Params& p) {
    const int64_t col = int64_t{thread.cta()} * kThreads + thread.thread();
    if (col >= p.cols) return;
    // Rows move to the front: what is read has not been written yet, be several read before the first is written. One
    // after another each would wait for the memory.
    constexpr int kAtOnce = 8;
    for (int64_t first = 0; first < p.num_kept; first += kAtOnce) {
      T kept[kAtOnce];
      QUIRE_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        if (first + i < p.num_kept) kept[i] = p.x[p.rows[first + i] * p.stride + col];
      }
      QUIRE_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        if (first + i < p.num_kept) p.x[(first + i) * p.stride + col] = kept[i];
      }
    }
  }
};

template <typename Device>
void GatherRows(const GatherRowsArgs& args, Device& device) {
  WithElement(args.x.dtype, [&]<typename T>(T) {
    using Kernel = GatherRowsKernel<T>;
    device.template Run<Kernel>(CeilDiv<int64_t>(args.x.cols, Kernel::kThreads),
                                {args.x.template Row<T>(0), args.x.row_stride, args.x.cols, args.rows, args.num_kept});
  });
}

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_GATHER_ROWS_CUDA_CUH_
