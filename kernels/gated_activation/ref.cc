#include <algorithm>
#include <cmath>

#include "kernels/gated_activation/impl.h"

namespace quire {
namespace {

float Gated(const Gate& gate, float g, float u) {
  switch (gate.kind) {
    case GateKind::kSilu:
      return g / (1.0f + std::exp(-g)) * u;
    case GateKind::kGeluTanh:
      return 0.5f * g * (1.0f + std::tanh(0.7978845608f * (g + 0.044715f * g * g * g))) * u;
    case GateKind::kGeluErf:
      return 0.5f * g * (1.0f + std::erf(g * 0.7071067812f)) * u;
    case GateKind::kClampedSwiGlu: {
      const float bounded = std::min(g, gate.limit);
      return (std::clamp(u, -gate.limit, gate.limit) + 1.0f) * (bounded / (1.0f + std::exp(-gate.alpha * bounded)));
    }
  }
  return 0;
}

}  // namespace

void RefGatedActivation(const GatedActivationArgs& args) {
  for (int64_t r = 0; r < args.y.rows; ++r) {
    const float* g = args.gate_up.Row<float>(r);
    const float* u = g + args.y.cols;
    for (int64_t i = 0; i < args.y.cols; ++i) {
      StoreFloat(args.y.data, args.y.dtype, r * args.y.row_stride + i, Gated(args.gate, g[i], u[i]));
    }
  }
}

}  // namespace quire
