// The tile kernels in AVX-512 with products of pairs of bfloat16 (vdpbf16ps), for caches of bfloat16.
//
// vdpbf16ps adds a product of two pairs to a float32 lane: twice the products of an FMA and no conversion. Pairs of
// dims of K lie side by side in the cache; pairs of slots of V are woven together here. Subnormal elements count as
// zero.

#include "kernels/paged_attention/lanes_avx512.h"
#include "kernels/paged_attention/tile_body.h"

namespace quire::attention {
namespace {

// Vectors of 32 bfloat16.
using Pairs = __m512i;

F Dot(F sum, Pairs a, Pairs b) {
  return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);  // NOLINT: the intrinsics offer no other cast
}
Pairs BroadcastPair(const char* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return _mm512_set1_epi32(pair);
}

// 16 pairs from two octets of slots: one vector where they are neighbours.
Pairs LoadOctets(const char* low, const char* high) {
  if (high == low + 32) return _mm512_loadu_si512(low);
  return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(low))),
                            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(high)), 1);
}

struct Bf16Product {
  using Element = Bf16;
  static constexpr int kSlotUnit = 16;
  static constexpr int kDimUnit = 32;

  static void Pack(const float* q, int32_t head_dim, char* packed) {
    RoundQuery(q, head_dim, reinterpret_cast<Bf16*>(packed));
  }

  template <int M>
  static constexpr int SlotPieces() {
    return M == 8 ? 2 : 4;
  }

  // scores[m, slot .. slot + 16 U) = q[m] . K[slot]; a lane is a slot.
  template <int M, int U, bool kFetch>
  [[gnu::always_inline]] static inline void Scores(const AttentionTile& tile, int32_t query, int32_t slot) {
    const char* low[U];
    const char* high[U];
    const char* next[U];
    bool whole = true;
    for (int u = 0; u < U; ++u) {
      const int32_t octet = slot / kOctet + 2 * u;
      low[u] = tile.slots.k[octet];
      high[u] = tile.slots.k[octet + 1];
      next[u] = tile.next.k[octet];
      whole = whole && high[u] == low[u] + 32;
    }
    if (whole) {
      Dots<M, U, kFetch, true>(tile, query, slot, low, high, next);
    } else {
      Dots<M, U, kFetch, false>(tile, query, slot, low, high, next);
    }
  }

  // Rounds to bfloat16, in place: the weights of a query are 2-byte elements at the begin of its scores.
  [[gnu::always_inline]] static inline F StoreWeights(float* scores, int32_t slot, F weights) {
    const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(weights);  // NOLINT: as above
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(reinterpret_cast<uint16_t*>(scores) + slot), rounded);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16));
  }

  template <int M>
  static constexpr int DimPieces() {
    return M == 8 ? 1 : 2;
  }

  // As FmaProduct's. The two vectors of 32 dims hold the low and the high 4 dims of each 8.
  template <int M, int U, bool kPart, bool kFetch, bool kHidden>
  [[gnu::always_inline]] static inline void Values(const AttentionTile& tile, const float* factors, int32_t query,
                                                   int32_t dim, Slots slots) {
    const __mmask32 mask = kPart ? (uint32_t{1} << (tile.value_dim - dim)) - 1 : ~uint32_t{0};
    const int64_t slot_bytes = int64_t{tile.value_stride} * 2;
    F acc[M][2 * U];
    for (int m = 0; m < M; ++m) {
      const float* old = tile.state.acc + int64_t{query + m} * tile.dim_stride + dim;
      const F factor = Lanes::Set1(factors[query + m]);
      for (int u = 0; u < 2 * U; ++u) {
        acc[m][u] = tile.first ? Lanes::Set1(0.0f) : Lanes::Mul(Lanes::Load(old + u * 16), factor);
      }
    }
    const char* weights = reinterpret_cast<const char*>(tile.scores + int64_t{query} * kTileSlots);
    for (int32_t octet = kHidden ? slots.begin / kOctet : 0; octet * kOctet < slots.end; ++octet) {
      const int32_t begin = kHidden ? slots.BeginIn(octet) : 0, end = slots.EndIn(octet);
      const char* v = tile.slots.v[octet] + dim * 2 + begin / 2 * 2 * slot_bytes;
      for (int32_t s = begin / 2 * 2; s < end; s += 2, v += 2 * slot_bytes) {
        if constexpr (kFetch) {
          FetchUpperValues(tile, static_cast<int32_t>(slot_bytes), octet, s, 2);
        }
        Pairs woven[2 * U];
        for (int u = 0; u < U; ++u) {
          Pairs even = _mm512_setzero_si512();  // the partner of an odd first slot, and of an even last one
          Pairs odd = _mm512_setzero_si512();
          if (!kHidden || s >= begin) {
            even = kPart ? _mm512_maskz_loadu_epi16(mask, v) : _mm512_loadu_si512(v + u * 64);
          }
          if (s + 1 < end) {
            odd = kPart ? _mm512_maskz_loadu_epi16(mask, v + slot_bytes) : _mm512_loadu_si512(v + slot_bytes + u * 64);
          }
          woven[2 * u] = _mm512_unpacklo_epi16(even, odd);
          woven[2 * u + 1] = _mm512_unpackhi_epi16(even, odd);
        }
        for (int m = 0; m < M; ++m) {
          const Pairs both = BroadcastPair(weights + m * kTileSlots * 4 + (octet * kOctet + s) * 2);
          for (int u = 0; u < 2 * U; ++u) acc[m][u] = Dot(acc[m][u], woven[u], both);
        }
      }
    }
    for (int m = 0; m < M; ++m) {
      float* out = tile.state.acc + int64_t{query + m} * tile.dim_stride + dim;
      for (int u = 0; u < 2 * U; ++u) Lanes::Store(out + u * 16, acc[m][u]);
    }
  }

  [[gnu::always_inline]] static inline F LoadAcc(const float* acc, int32_t dim) {
    const F low = Lanes::Load(acc + dim / 32 * 32);
    const F high = Lanes::Load(acc + dim / 32 * 32 + 16);
    const __m512i first = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
    return _mm512_permutex2var_ps(low, _mm512_add_epi32(first, _mm512_set1_epi32(dim % 32 / 2)), high);
  }

 private:
  template <int M, int U, bool kFetch, bool kWhole>
  [[gnu::always_inline]] static inline void Dots(const AttentionTile& tile, int32_t query, int32_t slot,
                                                 const char* const* low, const char* const* high,
                                                 const char* const* next) {
    const int64_t pair_stride = int64_t{tile.block_size} * 4;
    const char* q = tile.q + int64_t{query} * kQueryBytes;
    F acc[M][U];
    for (int m = 0; m < M; ++m) {
      for (int u = 0; u < U; ++u) acc[m][u] = Lanes::Set1(0.0f);
    }
    for (int32_t i = 0; i < tile.key_dim / 2; ++i) {
      Pairs k[U];
      for (int u = 0; u < U; ++u) {
        k[u] = kWhole ? _mm512_loadu_si512(low[u] + i * pair_stride)
                      : LoadOctets(low[u] + i * pair_stride, high[u] + i * pair_stride);
        if constexpr (kFetch) Prefetch(next[u] + i * pair_stride);
      }
      for (int m = 0; m < M; ++m) {
        const Pairs both = BroadcastPair(q + m * kQueryBytes + i * 4);
        for (int u = 0; u < U; ++u) acc[m][u] = Dot(acc[m][u], k[u], both);
      }
    }
    for (int m = 0; m < M; ++m) {
      float* scores = tile.scores + int64_t{query + m} * kTileSlots + slot;
      for (int u = 0; u < U; ++u) Lanes::Store(scores + u * 16, acc[m][u]);
    }
  }
};

}  // namespace

const AttentionKernels* Avx512Bf16Attention() {
  static constexpr AttentionKernels kKernels[] = {Softmax<FmaProduct<float>>::Table(), Softmax<Bf16Product>::Table(),
                                                  Softmax<FmaProduct<F16>>::Table()};
  return kKernels;
}

}  // namespace quire::attention
