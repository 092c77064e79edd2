// Lanes of tile_body.h for AVX-512. Included by tile_avx512.cc and tile_avx512_bf16.cc alone.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_LANES_AVX512_H_
#define QUIRE_KERNELS_PAGED_ATTENTION_LANES_AVX512_H_

#include "kernels/cpu/vector_avx512.h"

namespace quire::attention {
namespace {

struct Lanes : Vector {
  static F PairSum(F a, F b) {
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    return _mm512_add_ps(_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b));
  }
  static F BroadcastPair(const float* p) {
    return _mm512_castpd_ps(_mm512_broadcastsd_pd(_mm_load_sd(reinterpret_cast<const double*>(p))));
  }
  static float MaxOf(F a) { return _mm512_reduce_max_ps(a); }
  static F ZeroUnless(F x, F bound, F a) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, bound, _CMP_GT_OQ), a); }
};

}  // namespace
}  // namespace quire::attention

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_LANES_AVX512_H_
