#include <cmath>

#include "kernels/rms_norm/impl.h"

namespace quire {

void RefRmsNorm(const RmsNormArgs& args) {
  const int64_t hidden = args.x.cols / args.heads;
  for (int64_t r = 0; r < args.y.rows; ++r) {
    for (int64_t head = 0; head < args.heads; ++head) {
      const float* x = args.x.Row<float>(args.rows != nullptr ? args.rows[r] : r) + head * hidden;
      const int64_t y = r * args.y.row_stride + head * hidden;
      float sum = 0;
      for (int64_t i = 0; i < hidden; ++i) sum += x[i] * x[i];
      const float root = std::sqrt(sum / static_cast<float>(hidden) + args.epsilon);
      for (int64_t i = 0; i < hidden; ++i) {
        const float old = args.accumulate ? LoadFloat(args.y.data, args.y.dtype, y + i) : 0.0f;
        StoreFloat(args.y.data, args.y.dtype, y + i, old + x[i] / root * args.weight[i]);
      }
    }
  }
}

}  // namespace quire
