#include <cmath>

#include "kernels/rms_norm/impl.h"

namespace quire {

void RefRmsNorm(const RmsNormArgs& args) {
  for (int64_t r = 0; r < args.y.rows; ++r) {
    const float* x = args.x.Row<float>(args.rows != nullptr ? args.rows[r] : r);
    float sum = 0;
    for (int64_t i = 0; i < args.x.cols; ++i) sum += x[i] * x[i];
    const float root = std::sqrt(sum / static_cast<float>(args.x.cols) + args.epsilon);
    for (int64_t i = 0; i < args.x.cols; ++i) {
      StoreFloat(args.y.data, args.y.dtype, r * args.y.row_stride + i, x[i] / root * args.weight[i]);
    }
  }
}

}  // namespace quire
