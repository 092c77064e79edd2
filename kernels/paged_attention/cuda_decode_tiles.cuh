// What the decode kernel (cuda_decode.cuh) knows of how a cache keeps its keys and values: ElementTiles of elements,
// CodeTiles of the records of a quantised cache. Both say, for the 16 positions of a tile that a warp owns:
//
//   Slots, Copy    where eight positions lie, and the copy of all 16 into the warp's part of a stage
//   Scores         fragments of S^T[16 positions, heads] = K Q^T        lane: positions Position(i), NextPosition(i)
//   AddValues      fragments of O^T[dims, heads] += V^T P^T             lane: dims Dim(step, i, 0), Dim(step, i, 1)
//
// where i = lane / 4, and the rows of a fragment may stand for any positions and dims as long as both products agree.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_CUDA_DECODE_TILES_CUH_
#define QUIRE_KERNELS_PAGED_ATTENTION_CUDA_DECODE_TILES_CUH_

#include "kernels/cuda/numbers.h"
#include "kernels/paged_attention/cuda.h"
#include "kernels/paged_attention/cuda_codes.cuh"
#include "kernels/paged_attention/cuda_tile.cuh"

namespace quire::cuda {

constexpr int kWarpTokens = 16;  // positions of a tile that a warp owns

// The 16 positions of a copy: the first, and which of them the item sees.
struct CopyRange {
  int32_t position;
  int32_t begin, end;
};

// E: element of the cache. kDim: head_dim, rounded up.
template <typename E, int kDim>
struct ElementTiles {
  using Operand = E;
  using Tile = KvTile<E, kDim>;
  static constexpr bool kHasScales = false;
  static constexpr int kSteps = kDim / 16;
  static constexpr int kTileBytes = kTileTokens * Tile::kRowBytes;
  static constexpr int kStageBytes = 2 * kTileBytes;  // K, then V
  // In flight on an SM, all but one stage of each CTA: 64 KiB and more, where 5 TB/s need some 40 (performance of the
  // field: bandwidth times a microsecond, over 132 SMs).
  static constexpr int kStages = kDim == 256 ? 2 : kDim == 128 ? 3 : 4;
  static constexpr int kMinCtas = kDim == 256 ? 1 : 2;

  static constexpr int QueryBytes(int heads) { return heads * Tile::kRowBytes; }
  static QUIRE_DEVICE void StoreQuery(char* queries, int head, int dim, int32_t head_dim, float value) {
    Tile::StoreElement(queries, head, dim, value);
  }

  static QUIRE_DEVICE int Position(int i) { return i; }
  static QUIRE_DEVICE int NextPosition(int i) { return i + 8; }
  static QUIRE_DEVICE int Dim(int step, int i, int half, int32_t head_dim) { return 16 * step + i + 8 * half; }

  static QUIRE_DEVICE int64_t Slots(const PagedKv& kv, const BlockId* block_table, int32_t kv_head, int32_t position,
                                    int32_t begin, int32_t end) {
    return EightSlots(kv, block_table, kv_head, position, begin, end);
  }

  // Lanes 0 and 1 have the slots of the first and of the other eight positions. What is outside the range becomes zero.
  template <typename Thread>
  static QUIRE_DEVICE void Copy(const Thread& thread, const PagedKv& kv, const CopyRange& range, int64_t slots,
                                char* stage) {
    constexpr int kRowsAtOnce = kWarpSize / Tile::kUnits;
    const int unit = thread.lane() % Tile::kUnits, first_row = thread.lane() / Tile::kUnits;
    const bool has_unit = unit * Tile::kUnitElements < kv.head_dim;
    QUIRE_UNROLL
    for (int eight = 0; eight < 2; ++eight) {
      const int64_t from = thread.Shuffle(slots, eight) + unit * Tile::kUnitElements;
      QUIRE_UNROLL
      for (int r = 0; r < 8; r += kRowsAtOnce) {
        const int row = eight * 8 + r + first_row, position = range.position + row;
        const bool valid = position >= range.begin && position < range.end && has_unit;
        const int64_t element = from + int64_t{r + first_row} * kv.head_dim;
        char* to = stage + Tile::UnitOffset(thread.warp() * kWarpTokens + row, unit);
        thread.CopyAsync16(to, static_cast<const E*>(kv.k) + element, valid);
        thread.CopyAsync16(to + kTileBytes, static_cast<const E*>(kv.v) + element, valid);
      }
    }
  }

  template <int kTiles8, typename Thread>
  static QUIRE_DEVICE void Scores(const Thread& thread, const PagedKv& kv, const char* queries, const char* stage,
                                  float (&scores)[kTiles8][4]) {
    QUIRE_UNROLL
    for (int pair = 0; pair < kSteps / 2; ++pair) {
      uint32_t keys[2][4];
      Tile::LoadRows(thread, stage, thread.warp() * kWarpTokens, 2 * pair, keys[0]);
      Tile::LoadRows(thread, stage, thread.warp() * kWarpTokens, 2 * pair + 1, keys[1]);
      QUIRE_UNROLL
      for (int n = 0; n < kTiles8; ++n) {
        uint32_t b[4];
        Tile::LoadColumns(thread, queries, 8 * n, pair, b);
        thread.template MultiplyAdd<E>(scores[n], keys[0], b[0], b[1]);
        thread.template MultiplyAdd<E>(scores[n], keys[1], b[2], b[3]);
      }
    }
  }

  template <int kTiles8, typename Thread>
  static QUIRE_DEVICE void AddValues(const Thread& thread, const PagedKv& kv, const char* stage,
                                     const uint32_t (&weights)[kTiles8][2], float (&out)[kSteps][kTiles8][4]) {
    QUIRE_UNROLL
    for (int d = 0; d < kSteps; ++d) {
      uint32_t values[4];
      Tile::LoadDims(thread, stage + kTileBytes, thread.warp() * kWarpTokens, d, values);
      QUIRE_UNROLL
      for (int n = 0; n < kTiles8; ++n) thread.template MultiplyAdd<E>(out[d][n], values, weights[n][0], weights[n][1]);
    }
  }
};

// Records as they lie in the cache, odd ones two bytes beside a word. Codes go from shared memory to fragments in
// registers; their scales are multiplied into scores and weights. Fragments' rows are chosen so that lanes read words
// of different banks (head_dim 128), and words that need no shift:
//
//   row i of S^T      position Position(i), even: 0 8 2 10 4 12 6 14; row i + 8: the odd one after it
//   k-step t of QK    lane j = lane % 4 has the dims [j head_dim / 4, ...), a word of them for every kOfWord / 4 steps
//   row i of O^T      dims [i head_dim / 8, ...), two for every step
//
// REQUIRES: head_dim a multiple of kDimMultiple.
template <KvQuantization kQuantization, int kDim>
struct CodeTiles {
  using Operand = BFloat16;
  using C = Codes<kQuantization>;
  static constexpr bool kHasScales = true;
  static constexpr int kDimMultiple = 8 * C::kOfWord;
  static constexpr int kSteps = kDim / 16;
  static constexpr int kStepsOfWord = C::kOfWord / 4;      // of QK
  static constexpr int kKeyWords = kDim / 4 / C::kOfWord;  // of a lane, at most
  static constexpr int kValueWords = kDim / 8 / C::kOfWord;
  static constexpr int kTileBytes = kTileTokens * C::RecordBytes(kDim);
  static constexpr int kStageBytes = 2 * kTileBytes;  // K, then V
  // In flight on an SM 100 KiB and more (at head_dim 128 and 256), and warps enough to convert behind it.
  static constexpr int kStages = 4;
  static constexpr int kMinCtas = kDim == 256 ? 1 : kDim == 128 ? 2 : 3;

  static constexpr int QueryBytes(int heads) { return heads * kDim * 2; }
  // Fragments of Q^T: [heads / 8][step][lane][2] pairs.
  static QUIRE_DEVICE void StoreQuery(char* queries, int head, int dim, int32_t head_dim, float value) {
    const int lane_dims = head_dim / 4, j = dim / lane_dims, at = dim % lane_dims;
    if (j > 3) return;  // beyond head_dim
    const int code = at % C::kOfWord, m = code % C::kPairs;
    const int step = at / C::kOfWord * kStepsOfWord + m / 2, lane = head % 8 * 4 + j;
    Store(reinterpret_cast<BFloat16*>(queries) + (((head / 8 * kSteps + step) * kWarpSize + lane) * 2 + m % 2) * 2 +
              code / C::kPairs,
          value);
  }

  static QUIRE_DEVICE int Position(int i) { return i / 2 * 2 + i % 2 * 8; }
  static QUIRE_DEVICE int NextPosition(int i) { return Position(i) + 1; }
  static QUIRE_DEVICE int Dim(int step, int i, int half, int32_t head_dim) {
    return 2 * step < head_dim / 8 ? i * (head_dim / 8) + 2 * step + half : kDim;  // kDim: none
  }

  static QUIRE_DEVICE int64_t Slots(const PagedKv& kv, const BlockId* block_table, int32_t kv_head, int32_t position,
                                    int32_t begin, int32_t end) {
    return RecordSlots(kv, block_table, kv_head, position, begin, end, C::RecordBytes(kv.head_dim));
  }

  // Eight records are one run of memory, a multiple of 16 bytes. Of eight positions that the item sees none of, nothing
  // is read.
  template <typename Thread>
  static QUIRE_DEVICE void Copy(const Thread& thread, const PagedKv& kv, const CopyRange& range, int64_t slots,
                                char* stage) {
    const int record_bytes = C::RecordBytes(kv.head_dim), units = record_bytes * 8 / kUnitBytes;
    const int64_t first = thread.Shuffle(slots, 0), second = thread.Shuffle(slots, 1);
    char* to = stage + thread.warp() * kWarpTokens * record_bytes;
    for (int i = thread.lane(); i < 4 * units; i += kWarpSize) {
      const int run = (i >= units) + (i >= 2 * units) + (i >= 3 * units);  // of K, K, V, V
      const int offset = (i - run * units) * kUnitBytes;
      const int64_t from = run % 2 == 0 ? first : second;
      const char* cache = static_cast<const char*>(run < 2 ? kv.k : kv.v);
      if (from != kNoSlots)
        thread.CopyAsync16(to + run / 2 * kTileBytes + run % 2 * 8 * record_bytes + offset, cache + from + offset,
                           true);
    }
  }

  // The record of the warp's position in a tile.
  template <typename Thread>
  static QUIRE_DEVICE const char* Record(const Thread& thread, const PagedKv& kv, const char* tile, int position) {
    return tile + (thread.warp() * kWarpTokens + position) * C::RecordBytes(kv.head_dim);
  }
  template <typename Thread>
  static QUIRE_DEVICE float ValueScale(const Thread& thread, const PagedKv& kv, const char* stage, int position) {
    return ScaleAt(Record(thread, kv, stage + kTileBytes, position) + C::CodeBytes(kv.head_dim));
  }

  template <int kTiles8, typename Thread>
  static QUIRE_DEVICE void Scores(const Thread& thread, const PagedKv& kv, const char* queries, const char* stage,
                                  float (&scores)[kTiles8][4]) {
    struct alignas(8) Fragment {
      uint32_t b[2];
    };
    const auto* fragments = reinterpret_cast<const Fragment*>(queries) + thread.lane();
    const int i = thread.lane() / 4, first = thread.lane() % 4 * (C::CodeBytes(kv.head_dim) / 4);
    const char* even = Record(thread, kv, stage, Position(i)) + first;
    const char* odd = Record(thread, kv, stage, NextPosition(i)) + first - 2;
    uint32_t before = WordAt(odd);
    QUIRE_UNROLL
    for (int w = 0; w < kKeyWords; ++w) {
      if (w * 4 * C::kOfWord >= kv.head_dim) break;
      const uint32_t after = WordAt(odd + 4 * w + 4), word = WordAt(even + 4 * w);
      const uint32_t odd_word = PermuteBytes(before, after, 0x5432);
      before = after;
      QUIRE_UNROLL
      for (int u = 0; u < kStepsOfWord; ++u) {
        const uint32_t keys[4] = {C::Pair(word, 2 * u), C::Pair(odd_word, 2 * u), C::Pair(word, 2 * u + 1),
                                  C::Pair(odd_word, 2 * u + 1)};
        QUIRE_UNROLL
        for (int n = 0; n < kTiles8; ++n) {
          const Fragment f = fragments[(n * kSteps + w * kStepsOfWord + u) * kWarpSize];
          thread.template MultiplyAdd<BFloat16>(scores[n], keys, f.b[0], f.b[1]);
        }
      }
    }
    const int scale = C::CodeBytes(kv.head_dim);
    const float even_scale = ScaleAt(even - first + scale), odd_scale = ScaleAt(odd + 2 - first + scale);
    QUIRE_UNROLL
    for (int n = 0; n < kTiles8; ++n) {
      QUIRE_UNROLL
      for (int e = 0; e < 4; ++e) scores[n][e] *= e < 2 ? even_scale : odd_scale;
    }
  }

  template <int kTiles8, typename Thread>
  static QUIRE_DEVICE void AddValues(const Thread& thread, const PagedKv& kv, const char* stage,
                                     const uint32_t (&weights)[kTiles8][2], float (&out)[kSteps][kTiles8][4]) {
    // The lane's positions j, j + 8, and j + 1, j + 9: columns 2 * (lane % 4), the next, and those eight on.
    const int j = thread.lane() % 4 * 2, first = thread.lane() / 4 * (C::CodeBytes(kv.head_dim) / 8);
    const char* even = Record(thread, kv, stage + kTileBytes, j) + first;
    const char* odd = Record(thread, kv, stage + kTileBytes, j + 1) + first - 2;
    const int eight = 8 * C::RecordBytes(kv.head_dim);
    uint32_t before = WordAt(odd), before_eight = WordAt(odd + eight);
    QUIRE_UNROLL
    for (int w = 0; w < kValueWords; ++w) {
      if (w * 8 * C::kOfWord >= kv.head_dim) break;
      const uint32_t word = WordAt(even + 4 * w), word_eight = WordAt(even + eight + 4 * w);
      const uint32_t after = WordAt(odd + 4 * w + 4), after_eight = WordAt(odd + eight + 4 * w + 4);
      // The first half of the word's codes, then the other: of one position below, of the other above.
      const uint32_t evens[2] = {PermuteBytes(word, word_eight, 0x5410), PermuteBytes(word, word_eight, 0x7632)};
      const uint32_t odds[2] = {PermuteBytes(before, before_eight, 0x7632), PermuteBytes(after, after_eight, 0x5410)};
      before = after;
      before_eight = after_eight;
      QUIRE_UNROLL
      for (int half = 0; half < 2; ++half) {
        QUIRE_UNROLL
        for (int m = 0; m < C::kPairs; m += 2) {
          const uint32_t values[4] = {C::Pair(evens[half], m), C::Pair(evens[half], m + 1), C::Pair(odds[half], m),
                                      C::Pair(odds[half], m + 1)};
          QUIRE_UNROLL
          for (int n = 0; n < kTiles8; ++n) {
            thread.template MultiplyAdd<BFloat16>(out[(w * 2 + half) * (C::kPairs / 2) + m / 2][n], values,
                                                  weights[n][0], weights[n][1]);
          }
        }
      }
    }
  }
};

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_CUDA_DECODE_TILES_CUH_
