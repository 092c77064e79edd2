// Vector for AVX-512 F, BW, VL and DQ: sixteen float32 lanes. Included by kernels_avx512.cc and kernels_avx512_bf16.cc
// alone.

#ifndef QUIRE_KERNELS_CPU_VECTOR_AVX512_H_
#define QUIRE_KERNELS_CPU_VECTOR_AVX512_H_

#include <immintrin.h>

#include <cstdint>

namespace quire {
namespace {

struct Vector {
  using F = __m512;

  static constexpr int kWidth = 16;
  static constexpr int kRegisters = 32;

  static F Set1(float a) { return _mm512_set1_ps(a); }
  static F Load(const float* p) { return _mm512_loadu_ps(p); }
  static void Store(float* p, F a) { _mm512_storeu_ps(p, a); }
  static F Add(F a, F b) { return _mm512_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F Div(F a, F b) { return _mm512_div_ps(a, b); }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F Min(F a, F b) { return _mm512_min_ps(a, b); }
  static F Max(F a, F b) { return _mm512_max_ps(a, b); }

  static F LoadBf16(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(LoadH(p)), 16));
  }
  static F LoadF16(const uint16_t* p) { return _mm512_cvtph_ps(LoadH(p)); }
  static F LoadBf16Even(const uint16_t* p) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16)); }
  static F LoadBf16Odd(const uint16_t* p) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  // As ToBFloat16 (vcvtneps2bf16 would flush subnormals): nearest even; a NaN, whose low bits the addition could carry
  // away, keeps its high half and is made quiet.
  static void StoreBf16(uint16_t* p, F a) {
    const __m512i bits = _mm512_castps_si512(a);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    const __m512i value = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(value, 16)));
  }
  static void StoreF16(uint16_t* p, F a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
  }

  // 2^n, n the low bits of a number that was brought to integer by adding 1.5 * 2^23; -126 <= n <= 127.
  static F Pow2(F magic) {
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(magic), 23), _mm512_set1_epi32(0x3f800000)));
  }

  static float Sum(F a) { return _mm512_reduce_add_ps(a); }

  static void Prefetch(const void* p) { _mm_prefetch(p, _MM_HINT_T0); }

 private:
  static __m256i LoadH(const uint16_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
};

}  // namespace
}  // namespace quire

#endif  // QUIRE_KERNELS_CPU_VECTOR_AVX512_H_
