// The gates of gated_activation.h. No code in here: the kernels of every instruction set include it.

#ifndef QUIRE_KERNELS_GATED_ACTIVATION_GATE_H_
#define QUIRE_KERNELS_GATED_ACTIVATION_GATE_H_

#include <cstdint>

namespace quire {

enum class GateKind : uint8_t { kSilu, kGeluTanh, kGeluErf, kClampedSwiGlu };

struct Gate {
  GateKind kind = GateKind::kSilu;
  float alpha = 1.702f;  // kClampedSwiGlu only
  float limit = 7.0f;    // kClampedSwiGlu only; > 0
};

}  // namespace quire

#endif  // QUIRE_KERNELS_GATED_ACTIVATION_GATE_H_
