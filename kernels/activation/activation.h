// Elementwise functions of a matrix: y[r, i] = f(x[r, i]).
//
//   kIdentity  x                                                  rounding alone
//   kRelu      max(x, 0)                                          OPT
//   kSilu      x / (1 + e^-x)
//   kGeluTanh  x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))    "gelu_new", "gelu_pytorch_tanh": GPT-2
//   kGeluErf   x / 2 (1 + erf(x / sqrt 2))                        "gelu": Falcon
//   kSoftCap   cap * tanh(x / cap)                                the logits of Gemma 2 (Gemma team 2024, section 2)
//
// Float32, rounded once to y's type. y may be x. Examples: kGeluErf(1) = 0.841345, kGeluTanh(1) = 0.841192,
// kSoftCap(30) with cap 30 = 22.84783.

#ifndef QUIRE_KERNELS_ACTIVATION_ACTIVATION_H_
#define QUIRE_KERNELS_ACTIVATION_ACTIVATION_H_

#include "kernels/activation/activation_kind.h"
#include "kernels/tensor.h"

namespace quire {

struct ActivationArgs {
  Tensor x;  // float32 [num_rows, cols]
  ActivationKind kind;
  Tensor y;       // out: any dtype [num_rows, cols]; may be x
  float cap = 0;  // kSoftCap only; > 0
};

}  // namespace quire

#endif  // QUIRE_KERNELS_ACTIVATION_ACTIVATION_H_
