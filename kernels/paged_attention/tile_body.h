// The kernels of tile.h, written once over `Lanes`, the float32 vector of an instruction set. Included by tile_*.cc
// alone, each of which defines Lanes before: a Vector of kernels/cpu/vector_*.h with
//
//   PairSum(a, b)              a[0] + a[1], a[2] + a[3], ..., b[0] + b[1], ...
//   BroadcastPair(p)           p[0], p[1], p[0], p[1], ...
//   MaxOf(a)                   the largest lane
//   ZeroUnless(x, bound, a)    lane by lane: x > bound ? a : 0
//
// A kernel is Softmax<Product>; a Product says how queries meet keys and weights meet values. FmaProduct<T> multiplies
// in float32.
//
// Bits: whatever is computed for a query (its scores, its maximum, its sums over slots in rising order) is a chain of
// its own; register blocking over queries, slots and dims only decides which chains run side by side.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_TILE_BODY_H_
#define QUIRE_KERNELS_PAGED_ATTENTION_TILE_BODY_H_

#include <cstdint>

#include "kernels/paged_attention/tile.h"
#include "kernels/paged_attention/tile_codes.h"

namespace quire::attention {
namespace {

using F = Lanes::F;
constexpr int kLanes = Lanes::kWidth;
constexpr float kMinusInfinity = -__builtin_inff();

// Most queries of one register block. With 32 registers 8 queries and two vectors take 16 accumulators, enough to hide
// the latency of a multiply-add, 2 operands and a broadcast; with 16 registers half of that.
constexpr int kMaxQueries = Lanes::kRegisters == 32 ? 8 : 4;

// Inlined before the compiler looks for functions without effect, or it would take this for one.
[[gnu::always_inline]] inline void Prefetch(const void* p) { __builtin_prefetch(p); }

// 2^x for x <= 127 with a relative error below 1e-7; 0 below 2^-126. x = n + f, n to nearest: 2^x = 2^n 2^f, 2^f by a
// polynomial, minimax of the relative error on |f| <= 1/2 with 2^0 = 1.
[[gnu::always_inline]] inline F Exp2(F x) {
  const F round = Lanes::Set1(0x1.8p+23f);  // its ulp is 1
  const F shifted = Lanes::Add(x, round);
  const F f = Lanes::Sub(x, Lanes::Sub(shifted, round));
  F p = Lanes::Set1(0.00015353361959569156f);
  p = Lanes::Fma(p, f, Lanes::Set1(0.0013398875016719103f));
  p = Lanes::Fma(p, f, Lanes::Set1(0.00961843691766262f));
  p = Lanes::Fma(p, f, Lanes::Set1(0.055503323674201965f));
  p = Lanes::Fma(p, f, Lanes::Set1(0.24022647738456726f));
  p = Lanes::Fma(p, f, Lanes::Set1(0.6931471824645996f));
  p = Lanes::Fma(p, f, Lanes::Set1(1.0f));
  return Lanes::ZeroUnless(x, Lanes::Set1(-126.0f), Lanes::Mul(p, Lanes::Pow2(shifted)));
}

// tanh x = 1 - 2 / (1 + e^(2 x)), within 1e-7; NaN stays NaN, though Exp2 forgets it.
[[gnu::always_inline]] inline F Tanh(F x) {
  const F bounded = Lanes::Min(Lanes::Set1(20.0f), Lanes::Max(Lanes::Set1(-20.0f), x));
  const F power = Exp2(Lanes::Mul(bounded, Lanes::Set1(2.88539008f)));  // 2 log2(e)
  const F part = Lanes::Div(Lanes::Set1(-2.0f), Lanes::Add(Lanes::Set1(1.0f), power));
  return Lanes::Add(Lanes::Add(Lanes::Set1(1.0f), part), Lanes::Sub(bounded, bounded));
}

[[gnu::always_inline]] inline F ToBf16AndBack(F a) {
  uint16_t rounded[kLanes];
  Lanes::StoreBf16(rounded, a);
  return Lanes::LoadBf16(rounded);
}

// Elements of the cache, by storage type.
struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};
[[gnu::always_inline]] inline F LoadElements(const float* p) { return Lanes::Load(p); }
[[gnu::always_inline]] inline F LoadElements(const Bf16* p) { return Lanes::LoadBf16(&p->bits); }
[[gnu::always_inline]] inline F LoadElements(const F16* p) { return Lanes::LoadF16(&p->bits); }
[[gnu::always_inline]] inline void StoreElements(float* p, F a) { Lanes::Store(p, a); }
[[gnu::always_inline]] inline void StoreElements(Bf16* p, F a) { Lanes::StoreBf16(&p->bits, a); }
[[gnu::always_inline]] inline void StoreElements(F16* p, F a) { Lanes::StoreF16(&p->bits, a); }

// The first n elements at p, the other lanes zero; n < kLanes. For head_dims that are no multiple of kLanes.
template <typename T>
F LoadFirst(const T* p, int32_t n) {
  T all[kLanes] = {};
  __builtin_memcpy(all, p, n * sizeof(T));
  return LoadElements(all);
}

template <typename T>
void StoreFirst(T* p, int32_t n, F a) {
  T all[kLanes];
  StoreElements(all, a);
  __builtin_memcpy(p, all, n * sizeof(T));
}

// Rounds a query to T.
template <typename T>
void RoundQuery(const float* q, int32_t head_dim, T* rounded) {
  int32_t d = 0;
  for (; d + kLanes <= head_dim; d += kLanes) StoreElements(rounded + d, Lanes::Load(q + d));
  if (d < head_dim) StoreFirst(rounded + d, head_dim - d, LoadFirst(q + d, head_dim - d));
}

// Calls block.template operator()<M>(query) for blocks of M <= kMaxQueries queries that cover [begin, end).
template <typename Block>
[[gnu::always_inline]] inline void ForQueries(int32_t begin, int32_t end, const Block& block) {
  if constexpr (kMaxQueries == 8) {
    for (; begin + 8 <= end; begin += 8) block.template operator()<8>(begin);
  }
  for (; begin + 4 <= end; begin += 4) block.template operator()<4>(begin);
  if (begin + 2 <= end) {
    block.template operator()<2>(begin);
    begin += 2;
  }
  if (begin < end) block.template operator()<1>(begin);
}

// While a tile is computed the next one is fetched, at a steady pace: Scores fetches K, then comes the half of V with
// the lower slots, one part with each query's weights, and Values fetches the other half. A burst would fill the queue
// of misses and stall what computes.
//
// Fetches part `part` of `num_parts` of the lower half.
[[gnu::always_inline]] inline void FetchLowerValues(const AttentionTile& tile, int32_t row_bytes, int32_t part,
                                                    int32_t num_parts) {
  for (int32_t slot = part; slot < kTileSlots / 2; slot += num_parts) {
    const char* row = tile.next.v[slot / kOctet] + slot % kOctet * row_bytes;
    for (int32_t line = 0; line < row_bytes; line += 64) Prefetch(row + line);
  }
}

// Fetches what belongs to `num_slots` slots from `slot` on of an octet: half as much of the upper half.
[[gnu::always_inline]] inline void FetchUpperValues(const AttentionTile& tile, int32_t row_bytes, int32_t octet,
                                                    int32_t slot, int32_t num_slots) {
  const char* half_octet = tile.next.v[(kTileOctets + octet) / 2] + octet % 2 * (kOctet / 2) * row_bytes;
  const char* end = half_octet + (slot + num_slots) * row_bytes / 2;
  for (const char* line = half_octet + slot * row_bytes / 2; line < end; line += 64) Prefetch(line);
}

// Slots [begin, end) of a tile, end > begin.
struct Slots {
  int32_t begin;
  int32_t end;

  bool All() const { return begin == 0 && end == kTileSlots; }
  // Within an octet.
  int32_t BeginIn(int32_t octet) const { return begin > octet * kOctet ? begin - octet * kOctet : 0; }
  int32_t EndIn(int32_t octet) const { return end - octet * kOctet < kOctet ? end - octet * kOctet : kOctet; }
};

// Products in float32 of elements T; q and weights are float32.
template <typename T>
struct FmaProduct {
  using Element = T;
  static constexpr int kSlotUnit = kLanes;  // slots of the smallest piece of Scores
  static constexpr int kDimUnit = kLanes;   // dims of the smallest piece of Values

  static void Pack(const float* q, int32_t head_dim, char* packed) {
    T rounded[kMaxKeyDim];
    RoundQuery(q, head_dim, rounded);
    float* out = reinterpret_cast<float*>(packed);
    int32_t d = 0;
    for (; d + kLanes <= head_dim; d += kLanes) Lanes::Store(out + d, LoadElements(rounded + d));
    if (d < head_dim) StoreFirst(out + d, head_dim - d, LoadFirst(rounded + d, head_dim - d));
  }

  // How many pieces of slots M queries take at a time: 16 accumulators (8 of them with 16 registers).
  template <int M>
  static constexpr int SlotPieces() {
    return M == kMaxQueries ? 1 : M == kMaxQueries / 2 ? 2 : 4;
  }

  // scores[m, slot .. slot + U * kSlotUnit) = q[m] . K[slot]. A vector holds the pairs of dims of kLanes / 2 slots;
  // even and odd dims are added up apart and together at the end.
  template <int M, int U, bool kFetch>
  [[gnu::always_inline]] static inline void Scores(const AttentionTile& tile, int32_t query, int32_t slot) {
    const int64_t pair_stride = int64_t{tile.block_size} * 2;
    const T* k[2 * U];
    const T* next[2 * U];
    for (int u = 0; u < 2 * U; ++u) {
      const int32_t s = slot + u * (kLanes / 2);
      k[u] = reinterpret_cast<const T*>(tile.slots.k[s / kOctet]) + s % kOctet * 2;
      next[u] = reinterpret_cast<const T*>(tile.next.k[s / kOctet]) + s % kOctet * 2;
    }
    const char* q = tile.q + int64_t{query} * kQueryBytes;
    F acc[M][2 * U];
    for (int m = 0; m < M; ++m) {
      for (int u = 0; u < 2 * U; ++u) acc[m][u] = Lanes::Set1(0.0f);
    }
    for (int32_t i = 0; i < tile.key_dim / 2; ++i) {
      F pairs[2 * U];
      for (int u = 0; u < 2 * U; ++u) {
        pairs[u] = LoadElements(k[u] + i * pair_stride);
        if constexpr (kFetch) Prefetch(next[u] + i * pair_stride);
      }
      for (int m = 0; m < M; ++m) {
        const F both = Lanes::BroadcastPair(reinterpret_cast<const float*>(q + m * kQueryBytes) + 2 * i);
        for (int u = 0; u < 2 * U; ++u) acc[m][u] = Lanes::Fma(pairs[u], both, acc[m][u]);
      }
    }
    for (int m = 0; m < M; ++m) {
      float* scores = tile.scores + int64_t{query + m} * kTileSlots + slot;
      for (int u = 0; u < U; ++u) Lanes::Store(scores + u * kLanes, Lanes::PairSum(acc[m][2 * u], acc[m][2 * u + 1]));
    }
  }

  // Puts the weights of the vector at `slot` where Values finds them; returns what they will count.
  [[gnu::always_inline]] static inline F StoreWeights(float* scores, int32_t slot, F weights) {
    Lanes::Store(scores + slot, weights);
    return weights;
  }

  template <int M>
  static constexpr int DimPieces() {
    return M == kMaxQueries ? 2 : 4;
  }

  // acc[m, dim ..] = acc[m, dim ..] * factor[m] + sum over the slots of weight[m, slot] * V[slot, dim ..], for U pieces
  // of dims. kHidden: the first slots of the tile are not among them.
  template <int M, int U, bool kPart, bool kFetch, bool kHidden>
  [[gnu::always_inline]] static inline void Values(const AttentionTile& tile, const float* factors, int32_t query,
                                                   int32_t dim, Slots slots) {
    F acc[M][U];
    for (int m = 0; m < M; ++m) {
      const float* old = tile.state.acc + int64_t{query + m} * tile.dim_stride + dim;
      const F factor = Lanes::Set1(factors[query + m]);
      for (int u = 0; u < U; ++u) {
        acc[m][u] = tile.first ? Lanes::Set1(0.0f) : Lanes::Mul(Lanes::Load(old + u * kLanes), factor);
      }
    }
    const float* weights = tile.scores + int64_t{query} * kTileSlots;
    for (int32_t octet = kHidden ? slots.begin / kOctet : 0; octet * kOctet < slots.end; ++octet) {
      const int32_t begin = kHidden ? slots.BeginIn(octet) : 0, end = slots.EndIn(octet);
      const T* v = reinterpret_cast<const T*>(tile.slots.v[octet]) + dim + int64_t{begin} * tile.value_stride;
      for (int32_t s = begin; s < end; ++s, v += tile.value_stride) {
        if constexpr (kFetch) {
          FetchUpperValues(tile, tile.value_stride * int32_t{sizeof(T)}, octet, s, 1);
        }
        F value[U];
        for (int u = 0; u < U; ++u)
          value[u] = kPart ? LoadFirst(v, tile.value_dim - dim) : LoadElements(v + u * kLanes);
        for (int m = 0; m < M; ++m) {
          const F weight = Lanes::Set1(weights[m * kTileSlots + octet * kOctet + s]);
          for (int u = 0; u < U; ++u) acc[m][u] = Lanes::Fma(value[u], weight, acc[m][u]);
        }
      }
    }
    for (int m = 0; m < M; ++m) {
      float* out = tile.state.acc + int64_t{query + m} * tile.dim_stride + dim;
      for (int u = 0; u < U; ++u) Lanes::Store(out + u * kLanes, acc[m][u]);
    }
  }

  // acc[dim .. dim + kLanes) in the order of the dims.
  [[gnu::always_inline]] static inline F LoadAcc(const float* acc, int32_t dim) { return Lanes::Load(acc + dim); }
};

// Pairs of dims, as whole elements, from [slot][pair] to [pair][slot], by squares of vectors of 16 bytes.
template <typename T>
void TransposeKeys(const AttentionTile& tile, char* keys) {
  constexpr int32_t kPairBytes = 2 * sizeof(T), kSide = 16 / kPairBytes;
  typedef int32_t Bytes16 __attribute__((vector_size(16)));
  const int32_t pairs = tile.key_dim / 2, whole = pairs / kSide * kSide;
  const int64_t slot_bytes = int64_t{tile.value_stride} * int64_t{sizeof(T)};
  for (int32_t slot = 0; slot < tile.num_slots; slot += kSide) {
    const char* from = tile.slots.v[slot / kOctet] + slot % kOctet * slot_bytes;
    char* to = keys + slot * kPairBytes;
    const int32_t rows = tile.num_slots - slot < kSide ? tile.num_slots - slot : kSide;
    for (int32_t pair = 0; pair < (rows == kSide ? whole : 0); pair += kSide) {
      Bytes16 in[kSide], out[kSide];
      for (int32_t i = 0; i < kSide; ++i) __builtin_memcpy(&in[i], from + i * slot_bytes + pair * kPairBytes, 16);
      if constexpr (kSide == 4) {
        const Bytes16 low01 = __builtin_shufflevector(in[0], in[1], 0, 4, 1, 5);
        const Bytes16 high01 = __builtin_shufflevector(in[0], in[1], 2, 6, 3, 7);
        const Bytes16 low23 = __builtin_shufflevector(in[2], in[3], 0, 4, 1, 5);
        const Bytes16 high23 = __builtin_shufflevector(in[2], in[3], 2, 6, 3, 7);
        out[0] = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
        out[1] = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
        out[2] = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
        out[3] = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
      } else {
        out[0] = __builtin_shufflevector(in[0], in[1], 0, 1, 4, 5);
        out[1] = __builtin_shufflevector(in[0], in[1], 2, 3, 6, 7);
      }
      for (int32_t i = 0; i < kSide; ++i)
        __builtin_memcpy(to + int64_t{pair + i} * kTileSlots * kPairBytes, &out[i], 16);
    }
    for (int32_t i = 0; i < rows; ++i) {
      for (int32_t pair = rows == kSide ? whole : 0; pair < pairs; ++pair) {
        __builtin_memcpy(to + (int64_t{pair} * kTileSlots + i) * kPairBytes, from + i * slot_bytes + pair * kPairBytes,
                         kPairBytes);
      }
    }
  }
}

template <typename Product>
struct Softmax {
  static void Pack(const AttentionRows& rows, const float* q, int64_t row_stride, char* packed) {
    for (int32_t row = rows.row_begin; row < rows.row_end; ++row) {
      for (int32_t head = 0; head < rows.group; ++head) {
        Product::Pack(q + row * row_stride + int64_t{head} * rows.head_dim, rows.head_dim,
                      packed + int64_t{row * rows.group + head} * kQueryBytes);
      }
    }
  }

  static void Tile(const AttentionTile& tile) {
    const int32_t begin = tile.row_begin * tile.group;
    const int32_t end = tile.row_end * tile.group;
    float* factors = tile.factors;
    float* shifts = tile.factors + (end + kMaxLanes - 1) / kMaxLanes * kMaxLanes;
    ForQueries(begin, end, [&]<int M>(int32_t query) {
      if (query == begin) {
        AllScores<M, true>(tile, query);
      } else {
        AllScores<M, false>(tile, query);
      }
    });
    if (tile.k_scales != nullptr) ScaleScores(tile, begin, end);
    if (tile.slopes != nullptr || tile.cap_before > 0) ChangeScores(tile, begin, end);
    for (int32_t row = tile.row_begin; row < tile.row_end; ++row) {
      Maxima(tile, row * tile.group, (row + 1) * tile.group, SlotsOf(tile, row), shifts);
    }
    Advance(tile, begin, end, factors, shifts);
    for (int32_t row = tile.row_begin; row < tile.row_end; ++row) {
      Weights(tile, row * tile.group, (row + 1) * tile.group, SlotsOf(tile, row).end, factors, shifts);
    }
    // The rows whose position lies in the tile, or whose window begins there, see a part of it, each another; those
    // between them see all of it and are taken together.
    for (int32_t row = tile.row_begin; row < tile.row_end;) {
      const Slots slots = SlotsOf(tile, row);
      int32_t next = row + 1;
      while (slots.All() && next < tile.row_end && SlotsOf(tile, next).All()) ++next;
      Accumulate(tile, factors, row * tile.group, next * tile.group, slots, row == tile.row_begin);
      row = next;
    }
  }

  static void Merge(const AttentionRows& rows, float scale_log2, const AttentionState& part,
                    const AttentionState& total) {
    for (int32_t query = rows.row_begin * rows.group; query < rows.row_end * rows.group; ++query) {
      const F part_max = Lanes::Set1(part.max[query]);
      const F total_max = Lanes::Set1(total.max[query]);
      const F max = Lanes::Max(part_max, total_max);
      const F scale = Lanes::Set1(scale_log2);
      const F of_part = Exp2(Lanes::Mul(Lanes::Sub(part_max, max), scale));
      const F of_total = Exp2(Lanes::Mul(Lanes::Sub(total_max, max), scale));
      total.max[query] = Lanes::MaxOf(max);
      Combine(part.sum + query * kMaxLanes, of_part, total.sum + query * kMaxLanes, of_total, kLanes);
      const int64_t acc = int64_t{query} * rows.dim_stride;
      Combine(part.acc + acc, of_part, total.acc + acc, of_total, AccDims(rows.head_dim));
    }
  }

  static void Clear(const AttentionRows& rows, const AttentionState& state) {
    const F zero = Lanes::Set1(0.0f);
    for (int32_t query = rows.row_begin * rows.group; query < rows.row_end * rows.group; ++query) {
      state.max[query] = kMinusInfinity;
      Lanes::Store(state.sum + query * kMaxLanes, zero);
      float* acc = state.acc + int64_t{query} * rows.dim_stride;
      for (int32_t dim = 0; dim < AccDims(rows.head_dim); dim += kLanes) Lanes::Store(acc + dim, zero);
    }
  }

  static void Sink(const AttentionRows& rows, float scale_log2, const float* sinks, const AttentionState& total) {
    for (int32_t query = rows.row_begin * rows.group; query < rows.row_end * rows.group; ++query) {
      const F sink = Lanes::Set1(sinks[query % rows.group] * 1.44269504f);
      const F own = Lanes::Set1(total.max[query] * scale_log2);
      const F max = Lanes::Max(sink, own);
      const F of_own = Exp2(Lanes::Sub(own, max));
      float* acc = total.acc + int64_t{query} * rows.dim_stride;
      float* sum = total.sum + query * kMaxLanes;
      Lanes::Store(sum, Lanes::Mul(Lanes::Load(sum), of_own));
      sum[0] += Lanes::MaxOf(Exp2(Lanes::Sub(sink, max)));
      for (int32_t dim = 0; dim < AccDims(rows.head_dim); dim += kLanes) {
        Lanes::Store(acc + dim, Lanes::Mul(Lanes::Load(acc + dim), of_own));
      }
    }
  }

  static void Finish(const AttentionRows& rows, const AttentionState& total, int out_dtype, char* out,
                     int64_t row_bytes) {
    for (int32_t row = rows.row_begin; row < rows.row_end; ++row) {
      char* to = out + row * row_bytes;
      for (int32_t query = row * rows.group; query < (row + 1) * rows.group; ++query) {
        const float* acc = total.acc + int64_t{query} * rows.dim_stride;
        const float inverse = 1.0f / Lanes::Sum(Lanes::Load(total.sum + query * kMaxLanes));
        if (out_dtype == 0) {
          to = reinterpret_cast<char*>(Write(acc, inverse, rows.head_dim, reinterpret_cast<float*>(to)));
        } else if (out_dtype == 1) {
          to = reinterpret_cast<char*>(Write(acc, inverse, rows.head_dim, reinterpret_cast<Bf16*>(to)));
        } else {
          to = reinterpret_cast<char*>(Write(acc, inverse, rows.head_dim, reinterpret_cast<F16*>(to)));
        }
      }
    }
  }

  static constexpr AttentionKernels Table() {
    return {&Pack, &TransposeKeys<typename Product::Element>, &Expand, &Tile, &Merge, &Clear, &Sink, &Finish};
  }

 private:
  // Slots of the tile that `row` sees.
  static Slots SlotsOf(const AttentionTile& tile, int32_t row) {
    const int32_t hidden = tile.hidden + (row - tile.row_begin);
    const int32_t end = tile.valid + (row - tile.row_begin);
    return {hidden > 0 ? hidden : 0, end < kTileSlots ? end : kTileSlots};
  }

  // From products with codes to products with keys. What stands at slots that nobody sees is not looked at.
  static void ScaleScores(const AttentionTile& tile, int32_t begin, int32_t end) {
    for (int32_t query = begin; query < end; ++query) {
      float* scores = tile.scores + int64_t{query} * kTileSlots;
      for (int32_t slot = 0; slot < tile.num_slots; slot += kLanes) {
        Lanes::Store(scores + slot, Lanes::Mul(Lanes::Load(scores + slot), Lanes::Load(tile.k_scales + slot)));
      }
    }
  }

  // ALiBi and the soft cap, of scores that are not yet scaled.
  static void ChangeScores(const AttentionTile& tile, int32_t begin, int32_t end) {
    float positions[kTileSlots];  // rounded to bfloat16
    for (int32_t slot = 0; slot < kTileSlots; ++slot) positions[slot] = static_cast<float>(tile.position + slot);
    for (int32_t slot = 0; slot < kTileSlots; slot += kLanes) {
      Lanes::Store(positions + slot, ToBf16AndBack(Lanes::Load(positions + slot)));
    }
    for (int32_t query = begin; query < end; ++query) {
      float* scores = tile.scores + int64_t{query} * kTileSlots;
      for (int32_t slot = 0; slot < tile.num_slots; slot += kLanes) {
        F score = Lanes::Load(scores + slot);
        if (tile.slopes != nullptr) {
          const F slope = Lanes::Set1(tile.slopes[query % tile.group]);
          score = Lanes::Add(score, ToBf16AndBack(Lanes::Mul(slope, Lanes::Load(positions + slot))));
        }
        if (tile.cap_before > 0) {
          score = Lanes::Mul(Lanes::Set1(tile.cap_after), Tanh(Lanes::Mul(score, Lanes::Set1(tile.cap_before))));
        }
        Lanes::Store(scores + slot, score);
      }
    }
  }

  static int32_t AccDims(int32_t head_dim) {
    return (head_dim + Product::kDimUnit - 1) / Product::kDimUnit * Product::kDimUnit;
  }

  template <int M, bool kFetch>
  static void AllScores(const AttentionTile& tile, int32_t query) {
    constexpr int kPieces = Product::template SlotPieces<M>();
    int32_t slot = 0;
    for (; slot + (kPieces - 1) * Product::kSlotUnit < tile.num_slots; slot += kPieces * Product::kSlotUnit) {
      Product::template Scores<M, kPieces, kFetch>(tile, query, slot);
    }
    if constexpr (kPieces > 1) {
      for (; slot < tile.num_slots; slot += Product::kSlotUnit)
        Product::template Scores<M, 1, kFetch>(tile, query, slot);
    }
  }

  // tile_max[query] = the largest score; scores of the slots that the query does not see become -inf, up to a whole
  // vector.
  static void Maxima(const AttentionTile& tile, int32_t begin, int32_t end, Slots slots, float* tile_max) {
    for (int32_t query = begin; query < end; ++query) {
      float* scores = tile.scores + int64_t{query} * kTileSlots;
      for (int32_t slot = 0; slot < slots.begin; ++slot) scores[slot] = kMinusInfinity;
      for (int32_t slot = slots.end; slot % kLanes != 0; ++slot) scores[slot] = kMinusInfinity;
      F max = Lanes::Load(scores);
      for (int32_t slot = kLanes; slot < slots.end; slot += kLanes) max = Lanes::Max(max, Lanes::Load(scores + slot));
      tile_max[query] = Lanes::MaxOf(max);
    }
  }

  // Takes the maxima of the tile into the states. factors: what the old sums are to be multiplied with; shifts: in, the
  // maxima of the tile; out, minus the new maxima, in units of log2. Whole vectors: what lies beside [begin, end) is
  // scratch or stays as it is.
  static void Advance(const AttentionTile& tile, int32_t begin, int32_t end, float* factors, float* shifts) {
    const F scale = Lanes::Set1(tile.scale_log2);
    const F minus_scale = Lanes::Set1(-tile.scale_log2);
    for (int32_t query = begin; query < end; query += kLanes) {
      float old[kLanes];
      float tile_max[kLanes];
      const int32_t n = end - query < kLanes ? end - query : kLanes;
      for (int32_t i = 0; i < kLanes; ++i) {
        old[i] = tile.first || i >= n ? kMinusInfinity : tile.state.max[query + i];
        tile_max[i] = i >= n ? 0.0f : shifts[query + i];
      }
      const F before = Lanes::Load(old);
      const F max = Lanes::Max(before, Lanes::Load(tile_max));
      StoreFirstOrAll(factors + query, n, Exp2(Lanes::Mul(Lanes::Sub(before, max), scale)));
      StoreFirstOrAll(shifts + query, n, Lanes::Mul(max, minus_scale));
      StoreFirstOrAll(tile.state.max + query, n, max);
    }
  }

  static void StoreFirstOrAll(float* p, int32_t n, F a) {
    if (n == kLanes) {
      Lanes::Store(p, a);
    } else {
      StoreFirst(p, n, a);
    }
  }

  static void Weights(const AttentionTile& tile, int32_t begin, int32_t end, int32_t num_slots, const float* factors,
                      const float* shifts) {
    const F scale = Lanes::Set1(tile.scale_log2);
    const int32_t row_bytes = tile.value_stride * int32_t{sizeof(typename Product::Element)};
    const int32_t first = tile.row_begin * tile.group;
    const int32_t num_queries = (tile.row_end - tile.row_begin) * tile.group;
    for (int32_t query = begin; query < end; ++query) {
      float* scores = tile.scores + int64_t{query} * kTileSlots;
      float* sums = tile.state.sum + int64_t{query} * kMaxLanes;
      const F shift = Lanes::Set1(shifts[query]);
      FetchLowerValues(tile, row_bytes, query - first, num_queries);
      F sum = tile.first ? Lanes::Set1(0.0f) : Lanes::Mul(Lanes::Load(sums), Lanes::Set1(factors[query]));
      for (int32_t slot = 0; slot < num_slots; slot += kLanes) {
        const F weights = Exp2(Lanes::Fma(Lanes::Load(scores + slot), scale, shift));
        if (tile.v_scales != nullptr) {  // of codes; an unseen slot's scale may be NaN, its weight is 0
          const F scaled = Lanes::Mul(weights, Lanes::Load(tile.v_scales + slot));
          Product::StoreWeights(scores, slot, Lanes::ZeroUnless(weights, Lanes::Set1(0.0f), scaled));
          sum = Lanes::Add(sum, weights);
        } else {
          sum = Lanes::Add(sum, Product::StoreWeights(scores, slot, weights));
        }
      }
      Lanes::Store(sums, sum);
    }
  }

  static void Accumulate(const AttentionTile& tile, const float* factors, int32_t begin, int32_t end, Slots slots,
                         bool fetch) {
    ForQueries(begin, end, [&]<int M>(int32_t query) {
      if (slots.begin > 0) {
        AllValues<M, false, true>(tile, factors, query, slots);
      } else if (fetch && query == begin) {
        AllValues<M, true, false>(tile, factors, query, slots);
      } else {
        AllValues<M, false, false>(tile, factors, query, slots);
      }
    });
  }

  template <int M, bool kFetch, bool kHidden>
  static void AllValues(const AttentionTile& tile, const float* factors, int32_t query, Slots slots) {
    constexpr int kPieces = Product::template DimPieces<M>();
    constexpr int kUnit = Product::kDimUnit;
    int32_t dim = 0;
    if (kFetch && kPieces * kUnit <= tile.value_dim) {
      Product::template Values<M, kPieces, false, true, kHidden>(tile, factors, query, dim, slots);
      dim += kPieces * kUnit;
    }
    for (; dim + kPieces * kUnit <= tile.value_dim; dim += kPieces * kUnit) {
      Product::template Values<M, kPieces, false, false, kHidden>(tile, factors, query, dim, slots);
    }
    if (kFetch && dim == 0 && kUnit <= tile.value_dim) {
      Product::template Values<M, 1, false, true, kHidden>(tile, factors, query, dim, slots);
      dim += kUnit;
    }
    for (; dim + kUnit <= tile.value_dim; dim += kUnit) {
      Product::template Values<M, 1, false, false, kHidden>(tile, factors, query, dim, slots);
    }
    if (dim < tile.value_dim) Product::template Values<M, 1, true, false, kHidden>(tile, factors, query, dim, slots);
  }

  static void Combine(const float* part, F of_part, float* total, F of_total, int32_t n) {
    for (int32_t i = 0; i < n; i += kLanes) {
      Lanes::Store(total + i, Lanes::Fma(Lanes::Load(part + i), of_part, Lanes::Mul(Lanes::Load(total + i), of_total)));
    }
  }

  // Returns the place behind the last element.
  template <typename T>
  static T* Write(const float* acc, float inverse, int32_t head_dim, T* out) {
    const F factor = Lanes::Set1(inverse);
    const F zero = Lanes::Set1(0.0f);  // -0 + 0 = +0: the sign of a zero would tell in which company it was computed
    for (int32_t dim = 0; dim < head_dim; dim += kLanes) {
      const F value = Lanes::Add(Lanes::Mul(Product::LoadAcc(acc, dim), factor), zero);
      if (dim + kLanes <= head_dim) {
        StoreElements(out + dim, value);
      } else {
        StoreFirst(out + dim, head_dim - dim, value);
      }
    }
    return out + head_dim;
  }
};

}  // namespace
}  // namespace quire::attention

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_TILE_BODY_H_
