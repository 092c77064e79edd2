// The tile kernels in plain vectors of the compiler, for any CPU.

#include "kernels/cpu/vector_portable.h"
#include "kernels/dtype.h"

namespace quire::attention {
namespace {

struct Lanes : Vector {
  static F PairSum(F a, F b) { return F{a[0] + a[1], a[2] + a[3], b[0] + b[1], b[2] + b[3]}; }
  static F BroadcastPair(const float* p) { return F{p[0], p[1], p[0], p[1]}; }
  static float MaxOf(F a) {
    const float low = a[0] > a[1] ? a[0] : a[1];
    const float high = a[2] > a[3] ? a[2] : a[3];
    return low > high ? low : high;
  }
  static F ZeroUnless(F x, F bound, F a) { return x > bound ? a : F{}; }
};

}  // namespace
}  // namespace quire::attention

#include "kernels/paged_attention/tile_body.h"

namespace quire::attention {

const AttentionKernels* PortableAttention() {
  static constexpr AttentionKernels kKernels[] = {
      Softmax<FmaProduct<float>>::Table(), Softmax<FmaProduct<Bf16>>::Table(), Softmax<FmaProduct<F16>>::Table()};
  return kKernels;
}

}  // namespace quire::attention
