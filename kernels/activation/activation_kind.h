// The functions of activation.h. No code in here: the kernels of every instruction set include it.

#ifndef QUIRE_KERNELS_ACTIVATION_ACTIVATION_KIND_H_
#define QUIRE_KERNELS_ACTIVATION_ACTIVATION_KIND_H_

#include <cstdint>

namespace quire {

enum class ActivationKind : uint8_t { kIdentity, kRelu, kSilu, kGeluTanh, kGeluErf, kSoftCap };

}  // namespace quire

#endif  // QUIRE_KERNELS_ACTIVATION_ACTIVATION_KIND_H_
