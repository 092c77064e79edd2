// Vector for AVX2, FMA and F16C: eight float32 lanes. Included by kernels_avx2.cc alone.

#ifndef QUIRE_KERNELS_CPU_VECTOR_AVX2_H_
#define QUIRE_KERNELS_CPU_VECTOR_AVX2_H_

#include <immintrin.h>

#include <cstdint>

namespace quire {
namespace {

struct Vector {
  using F = __m256;

  static constexpr int kWidth = 8;
  static constexpr int kRegisters = 16;

  static F Set1(float a) { return _mm256_set1_ps(a); }
  static F Load(const float* p) { return _mm256_loadu_ps(p); }
  static void Store(float* p, F a) { _mm256_storeu_ps(p, a); }
  static F Add(F a, F b) { return _mm256_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F Mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F Div(F a, F b) { return _mm256_div_ps(a, b); }
  static F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F Min(F a, F b) { return _mm256_min_ps(a, b); }
  static F Max(F a, F b) { return _mm256_max_ps(a, b); }

  static F LoadBf16(const uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(LoadH(p)), 16));
  }
  static F LoadF16(const uint16_t* p) { return _mm256_cvtph_ps(LoadH(p)); }
  static F LoadBf16Even(const uint16_t* p) { return _mm256_castsi256_ps(_mm256_slli_epi32(LoadI(p), 16)); }
  static F LoadBf16Odd(const uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_and_si256(LoadI(p), _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  // As ToBFloat16: nearest even; a NaN, whose low bits the addition could carry away, keeps its high half and is made
  // quiet.
  static void StoreBf16(uint16_t* p, F a) {
    const __m256i bits = _mm256_castps_si256(a);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
  }
  static void StoreF16(uint16_t* p, F a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
  }

  // 2^n, n the low bits of a number that was brought to integer by adding 1.5 * 2^23; -126 <= n <= 127.
  static F Pow2(F magic) {
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(magic), 23), _mm256_set1_epi32(0x3f800000)));
  }

  static float Sum(F a) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }

  static void Prefetch(const void* p) { _mm_prefetch(p, _MM_HINT_T0); }

 private:
  static __m128i LoadH(const uint16_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
  static __m256i LoadI(const uint16_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
};

}  // namespace
}  // namespace quire

#endif  // QUIRE_KERNELS_CPU_VECTOR_AVX2_H_
