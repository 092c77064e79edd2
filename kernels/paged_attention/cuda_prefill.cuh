// Paged attention of chunks: a tile of packed rows against the whole context before it.
//
// A row of the tile is (row of the chunk, query head of the group), heads fastest, so that a KV head's keys are read
// once for its whole group; a warp takes 16 rows (FlashAttention-2: Dao 2023, §3.2), or two warps do, which score the
// same rows and sum up one half of the dims each. KV tiles of kTileTokens positions, counted from position 0, go
// through a ring of two stages. A row's arithmetic does not depend on which rows share its tile, nor on where its chunk
// began: tiles that it does not see change nothing of it.
//
// What lies beyond a row's position must not influence it, be it NaN: its score is minus infinity, but its value would
// still be multiplied by the weight 0. In the tiles where some rows see a position and others do not, values that are
// not finite are therefore taken out, and the rows that do see them become NaN.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_CUDA_PREFILL_CUH_
#define QUIRE_KERNELS_PAGED_ATTENTION_CUDA_PREFILL_CUH_

#include "kernels/cuda/numbers.h"
#include "kernels/paged_attention/cuda.h"
#include "kernels/paged_attention/cuda_prefill_tiles.cuh"
#include "kernels/paged_attention/cuda_tile.cuh"

namespace quire::cuda {

struct PrefillParams {
  const float* q;  // [num_rows, q_heads, head_dim], rows q_stride apart
  int64_t q_stride;
  void* out;  // the same of out_dtype, rows out_stride apart
  int64_t out_stride;
  DType out_dtype;
  int32_t group;
  ScoreRule rule;
  PagedKv kv;
  const PrefillItem* items;           // [num_ctas / kv_heads], or fewer:
  const AttentionCounters* counters;  // num_prefill
};

// Tiles: how the cache keeps its elements (cuda_prefill_tiles.cuh), and of them Products: how matrices are multiplied
// (cuda_prefill_mma.cuh, cuda_prefill_wgmma.cuh), with which tiles of rows and how many threads.
template <typename Tiles>
struct PrefillKernel {
  using Params = PrefillParams;
  using Products = typename Tiles::Products;
  using E = typename Products::Element;
  using QueryTile = KvTile<E, Products::kDims>;
  static constexpr int kDim = Products::kDims;  // head_dim, rounded up
  static constexpr int kThreads = Products::kThreads;
  static constexpr int kMinCtas = Products::kMinCtas;
  static constexpr int kStages = 2;
  static constexpr int kTokenSteps = Products::kTokenSteps;
  static constexpr int kOutSteps = Products::kOutSteps;  // of a warp, 16 dims each
  static constexpr int kRowWarps = Products::kRows / 16;
  static constexpr int kParts = kThreads / kWarpSize / kRowWarps;  // of the dims
  static_assert(kThreads == kRowWarps * kParts * kWarpSize && kOutSteps * kParts * 16 == kDim);

  // Shared memory: the queries, the tile made of one of the stages, which is thus as aligned as wgmma wants it, the
  // stages, the tile's marks.
  static constexpr int kPreparedOffset = Products::kRows * QueryTile::kRowBytes;
  static constexpr int kStagesOffset = kPreparedOffset + Tiles::kPreparedBytes;
  static constexpr int kMarksOffset = kStagesOffset + kStages * Tiles::kStageBytes;
  static constexpr int kSharedBytes = kMarksOffset + static_cast<int>(sizeof(TileMarks));
  static_assert(kMinCtas * (kSharedBytes + kReservedSharedBytes) <= kHopperSharedBytes);

  // What a lane knows: rows i and i + 8 of its warp's 16, i = lane / 4.
  struct State {
    float out[2 * kOutSteps][4];  // fragments: rows by dims of the warp's part, eight of them each
    float max[2], sum[2];         // max is the same in the four lanes of a row, sum is this lane's part
    int32_t position[2];          // of the rows; -1: no row
    int32_t q_head[2];            // of the rows
    typename Products::Queries queries;
  };

  template <typename Thread>
  static QUIRE_DEVICE void Run(const Thread& thread, const Params& p) {
    // Machine code for a device without these products is never run (CheckPrefillAttention), and empty.
    if constexpr (Products::template IsOn<Thread>()) Attend(thread, p);
  }

  template <typename Thread>
  static QUIRE_DEVICE void Attend(const Thread& thread, const Params& p) {
    if (thread.cta() / p.kv.kv_heads >= p.counters->num_prefill) return;
    const PrefillItem item = p.items[thread.cta() / p.kv.kv_heads];
    const int32_t kv_head = thread.cta() % p.kv.kv_heads;
    LoadQueries(thread, p, item, kv_head);

    State state;
    QUIRE_UNROLL
    for (int r = 0; r < 2; ++r) {
      state.max[r] = kNegativeInfinity;
      state.sum[r] = 0;
      const int32_t m = FirstRow(thread) + thread.lane() / 4 + r * 8, row = m / p.group;
      state.position[r] = row < item.num_rows ? item.first_position + row : -1;
      state.q_head[r] = kv_head * p.group + m % p.group;
    }
    QUIRE_UNROLL
    for (int n = 0; n < 2 * kOutSteps; ++n) {
      QUIRE_UNROLL
      for (int e = 0; e < 4; ++e) state.out[n][e] = 0;
    }

    const int32_t begin = FirstVisible(item.first_position, p.rule.window);
    const int32_t end = item.first_position + item.num_rows, num_tiles = CeilDiv(end, kTileTokens);
    const auto tile_of = [&](int32_t tile) {
      const int32_t position = tile * kTileTokens;
      return ChunkTile{
          kv_head, position, begin, end,
          position + kTileTokens - 1 > item.first_position || position < FirstVisible(end - 1, p.rule.window)};
    };
    Tiles::Copy(thread, p.kv, item.block_table, tile_of(begin / kTileTokens), Stage(thread, begin / kTileTokens));
    thread.CommitCopies();
    Products::Hold(thread, thread.shared(), FirstRow(thread), state.queries);
    for (int32_t tile = begin / kTileTokens; tile < num_tiles; ++tile) {
      if (tile + 1 < num_tiles) Tiles::Copy(thread, p.kv, item.block_table, tile_of(tile + 1), Stage(thread, tile + 1));
      thread.CommitCopies();  // of nothing after the last tile: there is always one group that need not have arrived
      thread.template WaitForCopies<1>();
      Products::MakeVisible(thread);
      thread.Sync();
      char* const stage = Stage(thread, tile);
      char* const prepared = thread.shared() + kPreparedOffset;
      if (Tiles::Prepares(tile_of(tile))) {
        Tiles::Prepare(thread, p.kv, tile_of(tile), stage, prepared, Marks(thread));
        Products::MakeVisible(thread);
        thread.Sync();
      }
      AttendTile(thread, p, Tiles::Operands(stage, prepared), tile * kTileTokens, tile_of(tile).is_edge, state);
      thread.Sync();  // before the stage is written again
    }
    StoreRows(thread, p, item, state);
  }

  // Of the tile, the first row that the warp takes; and of the dims the first.
  template <typename Thread>
  static QUIRE_DEVICE int FirstRow(const Thread& thread) {
    return thread.warp() % kRowWarps * 16;
  }
  template <typename Thread>
  static QUIRE_DEVICE int FirstDim(const Thread& thread) {
    return thread.warp() / kRowWarps * (kDim / kParts);
  }

  template <typename Thread>
  static QUIRE_DEVICE char* Stage(const Thread& thread, int32_t tile) {
    return thread.shared() + kStagesOffset + tile % kStages * Tiles::kStageBytes;
  }
  template <typename Thread>
  static QUIRE_DEVICE TileMarks* Marks(const Thread& thread) {
    return reinterpret_cast<TileMarks*>(thread.shared() + kMarksOffset);
  }

  template <typename Thread>
  static QUIRE_DEVICE void LoadQueries(const Thread& thread, const Params& p, const PrefillItem& item,
                                       int32_t kv_head) {
    for (int i = thread.thread(); i < Products::kRows * kDim; i += kThreads) {
      const int m = i / kDim, d = i % kDim;
      const int32_t row = m / p.group, q_head = kv_head * p.group + m % p.group;
      const bool valid = row < item.num_rows && d < p.kv.head_dim;
      QueryTile::StoreElement(
          thread.shared(), m, d,
          valid ? p.q[(item.first_row + row) * p.q_stride + int64_t{q_head} * p.kv.head_dim + d] : 0.0f);
    }
  }

  // The positions [begin, begin + kTileTokens) for all rows: the online softmax (Milakov and Gimelshein 2018).
  template <typename Thread>
  static QUIRE_DEVICE void AttendTile(const Thread& thread, const Params& p, const char* keys_tile, int32_t begin,
                                      bool is_edge, State& state) {
    float scores[2 * kTokenSteps][4];  // rows by positions, eight of them each
    Products::Score(thread, thread.shared(), FirstRow(thread), state.queries, keys_tile, scores);
    Scale(thread, p, begin, is_edge, state, scores);
    uint32_t weights[kTokenSteps][4];  // A fragments: rows by positions
    Softmax(thread, scores, state, weights);
    Products::AddValues(thread, weights, keys_tile + Products::kTileBytes, FirstDim(thread), state.out);
  }

  template <typename Thread>
  static QUIRE_DEVICE void Scale(const Thread& thread, const Params& p, int32_t begin, bool is_edge, const State& state,
                                 float (&scores)[2 * kTokenSteps][4]) {
    const TileMarks& marks = *Marks(thread);
    QUIRE_UNROLL
    for (int n = 0; n < 2 * kTokenSteps; ++n) {
      QUIRE_UNROLL
      for (int e = 0; e < 4; ++e) {
        float& score = scores[n][e];
        const int t = 8 * n + thread.lane() % 4 * 2 + e % 2;
        if constexpr (Tiles::kHasScales) score *= marks.key_scale[t];
        score = p.rule(score, begin + t, state.q_head[e / 2]);
        if (!is_edge) continue;
        if (begin + t > state.position[e / 2] || begin + t < FirstVisible(state.position[e / 2], p.rule.window)) {
          score = kNegativeInfinity;
        } else if (marks.not_finite[t] != 0) {
          score = kNaN;
        }
      }
    }
  }

  template <typename Thread>
  static QUIRE_DEVICE void Softmax(const Thread& thread, float (&scores)[2 * kTokenSteps][4], State& state,
                                   uint32_t (&weights)[kTokenSteps][4]) {
    float base[2];
    QUIRE_UNROLL
    for (int r = 0; r < 2; ++r) {
      float max = state.max[r];
      QUIRE_UNROLL
      for (int n = 0; n < 2 * kTokenSteps; ++n) max = Max(max, Max(scores[n][2 * r], scores[n][2 * r + 1]));
      max = Max(max, thread.ShuffleXor(max, 1));
      max = Max(max, thread.ShuffleXor(max, 2));
      base[r] = max == kNegativeInfinity ? 0.0f : max;  // a row that has seen nothing yet
      const float alpha = Exp2(state.max[r] - base[r]);
      state.max[r] = max;
      state.sum[r] *= alpha;
      QUIRE_UNROLL
      for (int n = 0; n < 2 * kOutSteps; ++n) {
        state.out[n][2 * r] *= alpha;
        state.out[n][2 * r + 1] *= alpha;
      }
    }
    QUIRE_UNROLL
    for (int t = 0; t < kTokenSteps; ++t) {
      QUIRE_UNROLL
      for (int f = 0; f < 4; ++f) {  // rows i, i + 8 of the first eight positions, then of the other eight
        const float* s = &scores[2 * t + f / 2][f % 2 * 2];
        const float low = Exp2(s[0] - base[f % 2]), high = Exp2(s[1] - base[f % 2]);
        if constexpr (Tiles::kHasScales) {
          const float* scales = &Marks(thread)->value_scale[16 * t + f / 2 * 8 + thread.lane() % 4 * 2];
          weights[t][f] = Pack<E>(low * scales[0], high * scales[1]);
          state.sum[f % 2] += low + high;
        } else {
          weights[t][f] = Pack<E>(low, high);
          // The denominator sums what the numerator is multiplied by: the rounded weights.
          state.sum[f % 2] += UnpackLow<E>(weights[t][f]) + UnpackHigh<E>(weights[t][f]);
        }
      }
    }
  }

  template <typename Thread>
  static QUIRE_DEVICE void StoreRows(const Thread& thread, const Params& p, const PrefillItem& item,
                                     const State& state) {
    QUIRE_UNROLL
    for (int r = 0; r < 2; ++r) {
      float sum = state.sum[r];
      sum += thread.ShuffleXor(sum, 1);
      sum += thread.ShuffleXor(sum, 2);
      const int m = FirstRow(thread) + thread.lane() / 4 + r * 8;
      const int32_t row = m / p.group;
      if (row >= item.num_rows) continue;
      sum = p.rule.WithSink(sum, state.max[r], state.q_head[r]);
      const int64_t begin = (item.first_row + row) * p.out_stride + int64_t{state.q_head[r]} * p.kv.head_dim;
      QUIRE_UNROLL
      for (int n = 0; n < 2 * kOutSteps; ++n) {
        QUIRE_UNROLL
        for (int e = 0; e < 2; ++e) {
          const int d = FirstDim(thread) + 8 * n + thread.lane() % 4 * 2 + e;
          if (d < p.kv.head_dim) StoreOut(p.out, p.out_dtype, begin + d, state.out[n][2 * r + e] / sum);
        }
      }
    }
  }
};

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_CUDA_PREFILL_CUH_
