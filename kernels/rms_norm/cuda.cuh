// The kernel of kernels/rms_norm/cuda.h: one CTA for each vector: a row, or a head of it. The residual needs no kernel:
// the linear before adds to it in its own epilogue (beta = 1), so a norm reads x once and writes y once.

#ifndef QUIRE_KERNELS_RMS_NORM_CUDA_CUH_
#define QUIRE_KERNELS_RMS_NORM_CUDA_CUH_

#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"
#include "kernels/rms_norm/cuda.h"

namespace quire::cuda {

template <typename T>
struct RmsNormKernel {
  struct Params {
    const float* x;  // [rows, heads, cols], rows x_stride apart
    int64_t x_stride;
    const float* weight;  // [cols]
    const int32_t* rows;  // nullptr, or [num_ctas / heads]
    T* y;                 // [num_ctas / heads, heads, cols], rows y_stride apart; may be x
    int64_t y_stride;
    int64_t cols;
    int32_t heads;
    float epsilon;
    bool accumulate;
  };
  static constexpr int kThreads = 256;
  static constexpr int kMinCtas = 2;
  static constexpr int kSharedBytes = kThreads / kWarpSize * static_cast<int>(sizeof(float));
  static constexpr int kKept = 16;  // values that a thread keeps in registers: a row of 4096 is read once

  template <typename Thread>
  static QUIRE_DEVICE void Run(const Thread& thread, const Params& p) {
    const int64_t row = thread.cta() / p.heads, head = thread.cta() % p.heads;
    const float* x = p.x + (p.rows != nullptr ? p.rows[row] : row) * p.x_stride + head * p.cols;
    float kept[kKept];
    float sum = 0;
    QUIRE_UNROLL
    for (int j = 0; j < kKept; ++j) {
      const int64_t i = thread.thread() + int64_t{j} * kThreads;
      kept[j] = i < p.cols ? x[i] : 0;
    }
    QUIRE_UNROLL
    for (int j = 0; j < kKept; ++j) sum += kept[j] * kept[j];
    for (int64_t i = thread.thread() + int64_t{kKept} * kThreads; i < p.cols; i += kThreads) sum += x[i] * x[i];
    sum = ReduceCta<Sum>(thread, sum, reinterpret_cast<float*>(thread.shared()));

    const float inverse = 1.0f / Sqrt(sum / static_cast<float>(p.cols) + p.epsilon);
    T* y = p.y + row * p.y_stride + head * p.cols;
    const auto store = [&](int64_t i, float value) {
      const float normed = value * inverse * p.weight[i];
      Store(y + i, p.accumulate ? Load(y + i) + normed : normed);
    };
    QUIRE_UNROLL
    for (int j = 0; j < kKept; ++j) {
      const int64_t i = thread.thread() + int64_t{j} * kThreads;
      if (i < p.cols) store(i, kept[j]);
    }
    for (int64_t i = thread.thread() + int64_t{kKept} * kThreads; i < p.cols; i += kThreads) store(i, x[i]);
  }
};

template <typename Device>
void RmsNorm(const RmsNormArgs& args, Device& device) {
  WithElement(args.y.dtype, [&]<typename T>(T) {
    using Kernel = RmsNormKernel<T>;
    device.template Run<Kernel>(
        args.y.rows * args.heads,
        {args.x.template Row<float>(0), args.x.row_stride, args.weight, args.rows, args.y.template Row<T>(0),
         args.y.row_stride, args.x.cols / args.heads, args.heads, args.epsilon, args.accumulate});
  });
}

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_RMS_NORM_CUDA_CUH_
