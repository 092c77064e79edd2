// One row of a gated activation for whatever Vector is: included by the kernels_*.cc alone.

#ifndef QUIRE_KERNELS_GATED_ACTIVATION_CPU_ROW_H_
#define QUIRE_KERNELS_GATED_ACTIVATION_CPU_ROW_H_

#include <cstdint>

#include "kernels/activation/cpu_row.h"
#include "kernels/cpu/row.h"
#include "kernels/gated_activation/gate.h"

namespace quire {
namespace {

// y = function(g, u), lane by lane.
template <class Out, class Function>
inline void MapPairs(const float* g, const float* u, int64_t cols, void* y, const Function& function) {
  for (int64_t i = 0; i < cols; i += Vector::kWidth) {
    StoreUpTo(static_cast<Out*>(y) + i, cols - i, function(LoadUpTo(g + i, cols - i), LoadUpTo(u + i, cols - i)));
  }
}

template <class Out>
void GatedActivationRow(const Gate& gate, const float* g, const float* u, int64_t cols, void* y) {
  using F = Vector::F;
  const F alpha = Vector::Set1(gate.alpha), limit = Vector::Set1(gate.limit), minus_limit = Vector::Set1(-gate.limit);
  switch (gate.kind) {
    case GateKind::kSilu:
      return MapPairs<Out>(g, u, cols, y, [](F g, F u) { return Vector::Mul(Silu(g), u); });
    case GateKind::kGeluTanh:
      return MapPairs<Out>(g, u, cols, y, [](F g, F u) { return Vector::Mul(GeluTanh(g), u); });
    case GateKind::kGeluErf:
      return MapPairs<Out>(g, u, cols, y, [](F g, F u) { return Vector::Mul(GeluErf(g), u); });
    case GateKind::kClampedSwiGlu:  // Min and Max give their second operand where one is NaN
      return MapPairs<Out>(g, u, cols, y, [=](F g, F u) {
        const F bounded = Vector::Min(limit, g);
        const F swish = Vector::Div(bounded, OnePlusExpMinus(Vector::Mul(alpha, bounded)));
        return Vector::Mul(Vector::Add(Vector::Min(limit, Vector::Max(minus_limit, u)), Vector::Set1(1.0f)), swish);
      });
  }
}

}  // namespace
}  // namespace quire

#endif  // QUIRE_KERNELS_GATED_ACTIVATION_CPU_ROW_H_
