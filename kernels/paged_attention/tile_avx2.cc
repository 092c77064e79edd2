// The tile kernels in AVX2, FMA and F16C.

#include "kernels/cpu/vector_avx2.h"

namespace quire::attention {
namespace {

struct Lanes : Vector {
  static F PairSum(F a, F b) {  // vhaddps works within 128-bit halves
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_hadd_ps(a, b)), 0xd8));
  }
  static F BroadcastPair(const float* p) {
    return _mm256_castpd_ps(_mm256_broadcast_sd(reinterpret_cast<const double*>(p)));
  }
  static float MaxOf(F a) {
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }
  static F ZeroUnless(F x, F bound, F a) { return _mm256_and_ps(_mm256_cmp_ps(x, bound, _CMP_GT_OQ), a); }
};

}  // namespace
}  // namespace quire::attention

#include "kernels/paged_attention/tile_body.h"

namespace quire::attention {

const AttentionKernels* Avx2Attention() {
  static constexpr AttentionKernels kKernels[] = {
      Softmax<FmaProduct<float>>::Table(), Softmax<FmaProduct<Bf16>>::Table(), Softmax<FmaProduct<F16>>::Table()};
  return kKernels;
}

}  // namespace quire::attention
