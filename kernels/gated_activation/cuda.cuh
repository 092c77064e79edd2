// The kernel of kernels/gated_activation/cuda.h: a thread for kPerThread elements of a row.

#ifndef QUIRE_KERNELS_GATED_ACTIVATION_CUDA_CUH_
#define QUIRE_KERNELS_GATED_ACTIVATION_CUDA_CUH_

#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/gated_activation/cuda.h"

namespace quire::cuda {

QUIRE_DEVICE float Gated(const Gate& gate, float g, float u) {
  switch (gate.kind) {
    case GateKind::kSilu:
      return g / (1.0f + Exp2(-g * kLog2E)) * u;
    case GateKind::kGeluTanh: {  // (1 + tanh x) / 2 = 1 / (1 + e^(-2 x))
      const float x = 0.7978845608f * (g + 0.044715f * g * g * g);
      return g / (1.0f + Exp2(-2.0f * x * kLog2E)) * u;
    }
    case GateKind::kGeluErf:
      return 0.5f * g * (1.0f + Erf(g * 0.7071067812f)) * u;
    case GateKind::kClampedSwiGlu: {
      const float bounded = Min(g, gate.limit);
      return (Max(-gate.limit, Min(u, gate.limit)) + 1.0f) * (bounded / (1.0f + Exp2(-gate.alpha * bounded * kLog2E)));
    }
  }
  return 0;
}

template <typename T>
struct GatedActivationKernel {
  struct Params {
    const float* gate_up;  // [num_rows, 2 * cols], rows gate_up_stride apart
    int64_t gate_up_stride;
    T* y;  // [num_rows, cols], rows y_stride apart
    int64_t y_stride;
    int64_t cols;
    int32_t ctas_per_row;
    Gate gate;
  };
  static constexpr int kThreads = 256;
  static constexpr int kMinCtas = 4;
  static constexpr int kSharedBytes = 0;
  static constexpr int kPerThread = 4;

  template <typename Thread>
  static QUIRE_DEVICE void Run(const Thread& thread, const Params& p) {
    const int64_t row = thread.cta() / p.ctas_per_row;
    const float* gate = p.gate_up + row * p.gate_up_stride;
    const int64_t begin = int64_t{thread.cta() % p.ctas_per_row} * kThreads * kPerThread + thread.thread();
    float g[kPerThread], u[kPerThread];
    QUIRE_UNROLL
    for (int j = 0; j < kPerThread; ++j) {
      const int64_t i = begin + j * kThreads;
      g[j] = i < p.cols ? gate[i] : 0;
      u[j] = i < p.cols ? gate[p.cols + i] : 0;
    }
    QUIRE_UNROLL
    for (int j = 0; j < kPerThread; ++j) {
      const int64_t i = begin + j * kThreads;
      if (i < p.cols) Store(p.y + row * p.y_stride + i, Gated(p.gate, g[j], u[j]));
    }
  }
};

template <typename Device>
void GatedActivation(const GatedActivationArgs& args, Device& device) {
  WithElement(args.y.dtype, [&]<typename T>(T) {
    using Kernel = GatedActivationKernel<T>;
    const auto ctas_per_row =
        static_cast<int32_t>(CeilDiv<int64_t>(args.y.cols, Kernel::kThreads * Kernel::kPerThread));
    device.template Run<Kernel>(args.y.rows * ctas_per_row,
                                {args.gate_up.template Row<float>(0), args.gate_up.row_stride,
                                 args.y.template Row<T>(0), args.y.row_stride, args.y.cols, ctas_per_row, args.gate});
  });
}

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_GATED_ACTIVATION_CUDA_CUH_
