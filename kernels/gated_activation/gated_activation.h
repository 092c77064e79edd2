// Gated activations of a GLU (Shazeer 2020, "GLU Variants", eq. 5 and 6): y[r, i] = gate(g[r, i]) * u[r, i], with
//
//   kSilu            g / (1 + e^-g)                                   SwiGLU: Llama, Mistral, Qwen, DeepSeek, Phi-3
//   kGeluTanh        g / 2 (1 + tanh(sqrt(2/pi) (g + 0.044715 g^3)))  GeGLU: Gemma
//   kGeluErf         g / 2 (1 + erf(g / sqrt 2))
//   kClampedSwiGlu   y = (u' + 1) g' / (1 + e^(-alpha g')),  g' = min(g, limit), u' = u bounded to [-limit, limit]
//                    gpt-oss, which has g and u interleaved on disk: they are taken apart when loaded
//
// Float32, rounded once to y's type. Examples: kSilu, g = [0, 1], u = [5, 2]: y = [0, 1.46212]; kGeluErf, g = 1, u = 2:
// 1.68269; kClampedSwiGlu with alpha 1.702 and limit 7, g = 9, u = -8: -6 * 7 / (1 + e^-11.914) = -41.99972.

#ifndef QUIRE_KERNELS_GATED_ACTIVATION_GATED_ACTIVATION_H_
#define QUIRE_KERNELS_GATED_ACTIVATION_GATED_ACTIVATION_H_

#include "kernels/gated_activation/gate.h"
#include "kernels/tensor.h"

namespace quire {

struct GatedActivationArgs {
  Tensor gate_up;  // float32 [num_rows, 2 * intermediate]: g in the first half of the columns, u in the second
  Tensor y;        // out: any dtype [num_rows, intermediate]
  Gate gate = {};
};

}  // namespace quire

#endif  // QUIRE_KERNELS_GATED_ACTIVATION_GATED_ACTIVATION_H_
