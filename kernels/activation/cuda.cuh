// The kernel of kernels/activation/cuda.h: a thread for each element.

#ifndef QUIRE_KERNELS_ACTIVATION_CUDA_CUH_
#define QUIRE_KERNELS_ACTIVATION_CUDA_CUH_

#include "kernels/activation/cuda.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"

namespace quire::cuda {

template <typename T>
struct ActivationKernel {
  struct Params {
    const float* x;  // [num_rows, cols], rows x_stride apart
    int64_t x_stride;
    T* y;  // [num_rows, cols], rows y_stride apart; may be x
    int64_t y_stride;
    int64_t cols;
    int32_t ctas_per_row;
    ActivationKind kind;
    float cap;
  };
  static constexpr int kThreads = 256;
  static constexpr int kMinCtas = 4;
  static constexpr int kSharedBytes = 0;

  static QUIRE_DEVICE float Activated(const Params& p, float x) {
    switch (p.kind) {
      case ActivationKind::kIdentity:
        return x;
      case ActivationKind::kRelu:
        return x < 0 ? 0 : x;
      case ActivationKind::kSilu:
        return x / (1.0f + Exp2(-x * kLog2E));
      case ActivationKind::kGeluTanh:  // (1 + tanh u) / 2 = 1 / (1 + e^(-2 u))
        return x / (1.0f + Exp2(-2.0f * 0.7978845608f * (x + 0.044715f * x * x * x) * kLog2E));
      case ActivationKind::kGeluErf:
        return 0.5f * x * (1.0f + Erf(x * 0.7071067812f));
      case ActivationKind::kSoftCap:
        return p.cap * Tanh(x / p.cap);
    }
    return 0;
  }

  template <typename Thread>
  static QUIRE_DEVICE void Run(const Thread& thread, const Params& p) {
    const int64_t row = thread.cta() / p.ctas_per_row;
    const int64_t i = int64_t{thread.cta() % p.ctas_per_row} * kThreads + thread.thread();
    if (i < p.cols) Store(p.y + row * p.y_stride + i, Activated(p, p.x[row * p.x_stride + i]));
  }
};

template <typename Device>
void Activation(const ActivationArgs& args, Device& device) {
  WithElement(args.y.dtype, [&]<typename T>(T) {
    using Kernel = ActivationKernel<T>;
    const auto ctas_per_row = static_cast<int32_t>(CeilDiv<int64_t>(args.y.cols, Kernel::kThreads));
    device.template Run<Kernel>(args.y.rows * ctas_per_row,
                                {args.x.template Row<float>(0), args.x.row_stride, args.y.template Row<T>(0),
                                 args.y.row_stride, args.y.cols, ctas_per_row, args.kind, args.cap});
  });
}

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_ACTIVATION_CUDA_CUH_
