#include "kernels/cpu/vector_avx512.h"
// The vector comes first: the kernels are written in terms of it.
namespace quire {
namespace {

// vpdpbusd: four unsigned by four signed bytes, added to 32 bits without saturation.
struct Int {
  using V = __m512i;
  using X = __m512i;
  static constexpr int kDot8Offset = 128;

  static V Set1(int32_t a) { return _mm512_set1_epi32(a); }
  static V Load(const uint32_t* p) { return _mm512_loadu_si512(p); }
  static V Bits(V a, int shift, uint32_t mask) {
    return _mm512_and_si512(_mm512_srli_epi32(a, static_cast<unsigned>(shift)),
                            _mm512_set1_epi32(static_cast<int>(mask)));
  }
  static V ShiftLeft(V a, int shift) { return _mm512_slli_epi32(a, static_cast<unsigned>(shift)); }
  static V Or(V a, V b) { return _mm512_or_si512(a, b); }
  static V Lookup(const uint8_t* table, V codes) {
    const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), codes);
  }
  static X Broadcast(const int8_t* x) {
    int four;
    __builtin_memcpy(&four, x, sizeof four);
    return _mm512_set1_epi32(four);
  }
  static V Dot(V sum, V codes, X x) { return _mm512_dpbusd_epi32(sum, codes, x); }
  static V Dot8(V sum, V codes, X x) { return _mm512_dpbusd_epi32(sum, codes, x); }
  static Vector::F ToFloat(V a) { return _mm512_cvtepi32_ps(a); }
  static Vector::F LoadInt8(const int8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
};

}  // namespace
}  // namespace quire

#include "kernels/linear/block_panel.h"

namespace quire {

const BlockKernels& Avx512VnniBlockKernels() { return kBlockTable; }

}  // namespace quire
