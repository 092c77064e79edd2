#include <cmath>

#include "kernels/activation/impl.h"

namespace quire {
namespace {

float Activated(const ActivationArgs& args, float x) {
  switch (args.kind) {
    case ActivationKind::kIdentity:
      return x;
    case ActivationKind::kRelu:
      return x < 0 ? 0 : x;
    case ActivationKind::kSilu:
      return x / (1.0f + std::exp(-x));
    case ActivationKind::kGeluTanh:
      return 0.5f * x * (1.0f + std::tanh(0.7978845608f * (x + 0.044715f * x * x * x)));
    case ActivationKind::kGeluErf:
      return 0.5f * x * (1.0f + std::erf(x * 0.7071067812f));
    case ActivationKind::kSoftCap:
      return args.cap * std::tanh(x / args.cap);
  }
  return 0;
}

}  // namespace

void RefActivation(const ActivationArgs& args) {
  for (int64_t r = 0; r < args.y.rows; ++r) {
    const float* x = args.x.Row<float>(r);
    for (int64_t i = 0; i < args.y.cols; ++i) {
      StoreFloat(args.y.data, args.y.dtype, r * args.y.row_stride + i, Activated(args, x[i]));
    }
  }
}

}  // namespace quire
