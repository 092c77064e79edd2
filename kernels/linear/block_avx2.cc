#include "kernels/cpu/vector_avx2.h"
// The vector comes first: the kernels are written in terms of it.
namespace quire {
namespace {

// vpmaddubsw saturates pairs at 16 bits: two codes below 64 by two of x, at most 127, stay below.
struct Int {
  using V = __m256i;
  using X = __m256i;
  static constexpr int kDot8Offset = 0;

  static V Set1(int32_t a) { return _mm256_set1_epi32(a); }
  static V Load(const uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static V Bits(V a, int shift, uint32_t mask) {
    return _mm256_and_si256(_mm256_srli_epi32(a, shift), _mm256_set1_epi32(static_cast<int>(mask)));
  }
  static V ShiftLeft(V a, int shift) { return _mm256_slli_epi32(a, shift); }
  static V Or(V a, V b) { return _mm256_or_si256(a, b); }
  static V Lookup(const uint8_t* table, V codes) {
    const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), codes);
  }
  static X Broadcast(const int8_t* x) {
    int four;
    __builtin_memcpy(&four, x, sizeof four);
    return _mm256_set1_epi32(four);
  }
  static V Dot(V sum, V codes, X x) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, x), _mm256_set1_epi16(1)));
  }
  // |w| by x with w's sign: 2 * 128 * 127 stays below 2^15.
  static V Dot8(V sum, V codes, X x) {
    const V w = _mm256_xor_si256(codes, _mm256_set1_epi8(static_cast<char>(0x80)));
    return Dot(sum, _mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
  }
  static Vector::F ToFloat(V a) { return _mm256_cvtepi32_ps(a); }
  static Vector::F LoadInt8(const int8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
};

}  // namespace
}  // namespace quire

#include "kernels/linear/block_panel.h"

namespace quire {

const BlockKernels& Avx2BlockKernels() { return kBlockTable; }

}  // namespace quire
