#include <cmath>

#include "kernels/swiglu/impl.h"

namespace quire {

void RefSwiGlu(const SwiGluArgs& args) {
  for (int64_t r = 0; r < args.y.rows; ++r) {
    const float* gate = args.gate_up.Row<float>(r);
    const float* up = gate + args.y.cols;
    for (int64_t i = 0; i < args.y.cols; ++i) {
      const float silu = gate[i] / (1.0f + std::exp(-gate[i]));
      StoreFloat(args.y.data, args.y.dtype, r * args.y.row_stride + i, silu * up[i]);
    }
  }
}

}  // namespace quire
