// The kernel of kernels/layer_norm/cuda.h: one CTA for each row.

#ifndef QUIRE_KERNELS_LAYER_NORM_CUDA_CUH_
#define QUIRE_KERNELS_LAYER_NORM_CUDA_CUH_

#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"
#include "kernels/layer_norm/cuda.h"

namespace quire::cuda {

template <typename T>
struct LayerNormKernel {
  struct Params {
    const float* x;  // [rows, cols], rows x_stride apart
    int64_t x_stride;
    const float* weight;  // [cols], or nullptr
    const float* bias;    // [cols], or nullptr
    const int32_t* rows;  // nullptr, or [num_ctas]
    T* y;                 // [num_ctas, cols], rows y_stride apart; may be x
    int64_t y_stride;
    int64_t cols;
    float epsilon;
  };
  static constexpr int kThreads = 256;
  static constexpr int kMinCtas = 4;
  static constexpr int kSharedBytes = kThreads / kWarpSize * static_cast<int>(sizeof(float));

  template <typename Thread>
  static QUIRE_DEVICE void Run(const Thread& thread, const Params& p) {
    const int64_t row = thread.cta();
    const float* x = p.x + (p.rows != nullptr ? p.rows[row] : row) * p.x_stride;
    auto* scratch = reinterpret_cast<float*>(thread.shared());
    const auto cols = static_cast<float>(p.cols);
    float sum = 0;
    for (int64_t i = thread.thread(); i < p.cols; i += kThreads) sum += x[i];
    const float mean = ReduceCta<Sum>(thread, sum, scratch) / cols;
    float squares = 0;
    for (int64_t i = thread.thread(); i < p.cols; i += kThreads) squares += (x[i] - mean) * (x[i] - mean);
    const float inverse = 1.0f / Sqrt(ReduceCta<Sum>(thread, squares, scratch) / cols + p.epsilon);
    for (int64_t i = thread.thread(); i < p.cols; i += kThreads) {
      const float normed = (x[i] - mean) * inverse;
      Store(p.y + row * p.y_stride + i,
            normed * (p.weight != nullptr ? p.weight[i] : 1.0f) + (p.bias != nullptr ? p.bias[i] : 0.0f));
    }
  }
};

template <typename Device>
void LayerNorm(const LayerNormArgs& args, Device& device) {
  WithElement(args.y.dtype, [&]<typename T>(T) {
    using Kernel = LayerNormKernel<T>;
    device.template Run<Kernel>(args.y.rows,
                                {args.x.template Row<float>(0), args.x.row_stride, args.weight, args.bias, args.rows,
                                 args.y.template Row<T>(0), args.y.row_stride, args.x.cols, args.epsilon});
  });
}

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_LAYER_NORM_CUDA_CUH_
