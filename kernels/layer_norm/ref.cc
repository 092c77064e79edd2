#include <cmath>

#include "kernels/layer_norm/impl.h"

namespace quire {

void RefLayerNorm(const LayerNormArgs& args) {
  const int64_t cols = args.x.cols;
  for (int64_t r = 0; r < args.y.rows; ++r) {
    const float* x = args.x.Row<float>(args.rows != nullptr ? args.rows[r] : r);
    float mean = 0;
    for (int64_t i = 0; i < cols; ++i) mean += x[i];
    mean /= static_cast<float>(cols);
    float variance = 0;
    for (int64_t i = 0; i < cols; ++i) variance += (x[i] - mean) * (x[i] - mean);
    variance /= static_cast<float>(cols);
    const float root = std::sqrt(variance + args.epsilon);
    for (int64_t i = 0; i < cols; ++i) {
      const float weight = args.weight != nullptr ? args.weight[i] : 1.0f;
      const float bias = args.bias != nullptr ? args.bias[i] : 0.0f;
      StoreFloat(args.y.data, args.y.dtype, r * args.y.row_stride + i, (x[i] - mean) / root * weight + bias);
    }
  }
}

}  // namespace quire
