// Paged decode attention: one row of a sequence against a range of its context, for one KV head and the query heads of
// its group.
//
// The group's heads are the 8-wide side of the tensor cores' tile and the positions its 16-wide side, so that a group
// of 4 or 8 wastes little (performance of the field: swapping the operands is the largest lever):
//
//   S^T[16 positions, 8 heads] = K Q^T        O^T[16 dims, 8 heads] += V^T P^T
//
// Four warps; each owns 16 of the 64 positions of every tile from the copy to the sum: its own ring of stages, its own
// running maximum and sum. Nothing but the lanes of a warp waits for each other until the item ends; then the warps'
// results are merged, and, where a context is split, the last CTA to arrive merges the splits (by log-sum-exp), in
// order.
//
// CTAs take items from a counter until there are none. KV is read once, in runs of a slot (head_dim elements), and
// nothing beyond the item's end is read: those positions are zero in the tile and minus infinity in the scores.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_CUDA_DECODE_CUH_
#define QUIRE_KERNELS_PAGED_ATTENTION_CUDA_DECODE_CUH_

#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"
#include "kernels/paged_attention/cuda.h"
#include "kernels/paged_attention/cuda_tile.cuh"

namespace quire::cuda {

struct DecodeParams {
  const float* q;  // [num_rows, q_heads, head_dim], rows q_stride apart
  int64_t q_stride;
  void* out;  // [num_rows, q_heads, head_dim] of out_dtype, rows out_stride apart
  int64_t out_stride;
  DType out_dtype;
  int32_t q_heads;
  int32_t group;
  int32_t num_slices;  // of a group: CTAs that share a KV head, each with kHeads of its query heads
  ScoreRule rule;
  PagedKv kv;
  AttentionPlan plan;
};

// E: element of the cache. kDim: head_dim, rounded up. kTiles8: heads of a CTA, in eights.
template <typename E, int kDim, int kTiles8>
struct DecodeKernel {
  using Params = DecodeParams;
  using Tile = KvTile<E, kDim>;
  static constexpr int kThreads = 128;
  static constexpr int kWarps = kThreads / kWarpSize;
  static constexpr int kHeads = 8 * kTiles8;
  static constexpr int kStages = kDim == 256 ? 2 : kDim == 128 ? 3 : 4;
  static constexpr int kMinCtas = kDim == 256 ? 1 : 2;
  static constexpr int kDimSteps = kDim / 16;
  static constexpr int kWarpRows = kTileTokens / kWarps;
  static_assert(kWarpRows == 16);

  static constexpr int kTileBytes = kTileTokens * Tile::kRowBytes;
  static constexpr int kStageBytes = 2 * kTileBytes;  // K, then V
  static constexpr int kQueryBytes = kHeads * Tile::kRowBytes;
  // What is in shared memory: the queries, the item's number, then the stages; after the last tile, in place of the
  // stages, each warp's results.
  static constexpr int kItemOffset = kQueryBytes;
  static constexpr int kStagesOffset = kItemOffset + 128;
  static constexpr int kSharedBytes = kStagesOffset + kStages * kStageBytes;
  struct WarpResult {
    float max[kHeads], sum[kHeads];
    float out[kHeads][kDim];
  };
  static_assert(kWarps * sizeof(WarpResult) <= kStages * kStageBytes);

  // What a lane knows of its warp's part of an item. Heads j, j + 1 of each eight, j = 2 * (lane % 4).
  struct State {
    float out[kDimSteps][kTiles8][4];  // fragments of O^T: dims by heads
    float max[kTiles8][2];             // so far, of the scaled scores; the same in all lanes of a column
    float sum[kTiles8][2];             // this lane's part
  };

  template <typename Thread>
  static QUIRE_DEVICE void Run(const Thread& thread, const Params& p) {
    auto* shared_item = reinterpret_cast<int32_t*>(thread.shared() + kItemOffset);
    const int32_t heads = p.kv.kv_heads * p.num_slices;
    while (true) {
      if (thread.thread() == 0) *shared_item = thread.AtomicAdd(&p.plan.counters->next, 1);
      thread.Sync();
      const int32_t i = *shared_item;
      if (i >= p.plan.counters->num_decode * heads) break;
      const DecodeItem item = p.plan.decode_items[i / heads];
      RunItem(thread, p, item, i / heads, i % heads);
      thread.Sync();  // before shared memory is written again
    }
    // The last to find nothing leaves the counters as they were for the next layer.
    if (thread.thread() == 0 && thread.AtomicAdd(&p.plan.counters->num_done, 1) == thread.num_ctas() - 1) {
      p.plan.counters->next = 0;
      p.plan.counters->num_done = 0;
    }
  }

  template <typename Thread>
  static QUIRE_DEVICE void RunItem(const Thread& thread, const Params& p, const DecodeItem& item, int32_t index,
                                   int32_t head) {
    const int32_t kv_head = head / p.num_slices, first = head % p.num_slices * kHeads;  // head of the group
    const int32_t num_heads = Min(kHeads, p.group - first);
    LoadQueries(thread, p, item.row, kv_head * p.group + first, num_heads);

    State state;
    QUIRE_UNROLL
    for (int n = 0; n < kTiles8; ++n) {
      QUIRE_UNROLL
      for (int e = 0; e < 2; ++e) {
        state.max[n][e] = kNegativeInfinity;
        state.sum[n][e] = 0;
      }
      QUIRE_UNROLL
      for (int d = 0; d < kDimSteps; ++d) {
        QUIRE_UNROLL
        for (int e = 0; e < 4; ++e) state.out[d][n][e] = 0;
      }
    }
    thread.Sync();  // the queries are there
    AttendItem(thread, p, item, kv_head, kv_head * p.group + first, state);
    thread.template WaitForCopies<0>();
    thread.Sync();  // nobody reads the stages any more
    StoreWarpResult(thread, state);
    thread.Sync();
    Merge(thread, p, item, index, kv_head * p.group + first, num_heads);
  }

  template <typename Thread>
  static QUIRE_DEVICE void LoadQueries(const Thread& thread, const Params& p, int32_t row, int32_t q_head,
                                       int32_t num_heads) {
    const float* q = p.q + row * p.q_stride + int64_t{q_head} * p.kv.head_dim;
    for (int i = thread.thread(); i < kHeads * kDim; i += kThreads) {
      const int h = i / kDim, d = i % kDim;
      Tile::StoreElement(thread.shared(), h, d,
                         h < num_heads && d < p.kv.head_dim ? q[int64_t{h} * p.kv.head_dim + d] : 0.0f);
    }
  }

  // The positions that this warp owns of a tile begin here.
  template <typename Thread>
  static QUIRE_DEVICE int32_t WarpBegin(const Thread& thread, const DecodeItem& item, int32_t tile) {
    return item.tile_begin + tile * kTileTokens + thread.warp() * kWarpRows;
  }

  template <typename Thread>
  static QUIRE_DEVICE void AttendItem(const Thread& thread, const Params& p, const DecodeItem& item, int32_t kv_head,
                                      int32_t q_head, State& state) {
    const int32_t num_tiles = CeilDiv(item.end - item.tile_begin, kTileTokens);
    // Even lanes know where the warp's first eight positions of the next tile lie, odd lanes the other eight.
    const auto slots_of = [&](int32_t tile) {
      return EightSlots(p.kv, item.block_table, kv_head, WarpBegin(thread, item, tile) + thread.lane() % 2 * 8,
                        item.begin, item.end);
    };
    int64_t slots = slots_of(0);
    for (int s = 0; s < kStages - 1; ++s) {
      CopyTile(thread, p, item, s, num_tiles, slots);
      slots = slots_of(s + 1);
    }
    for (int32_t tile = 0; tile < num_tiles; ++tile) {
      thread.template WaitForCopies<kStages - 2>();
      thread.SyncWarp();
      CopyTile(thread, p, item, tile + kStages - 1, num_tiles, slots);
      slots = slots_of(tile + kStages);
      const char* stage = thread.shared() + kStagesOffset + tile % kStages * kStageBytes;
      AttendTile(thread, p, item, stage, WarpBegin(thread, item, tile), q_head, state);
    }
  }

  // Starts the copy of this warp's part of a tile, and commits it: a group of its own, be it empty.
  template <typename Thread>
  static QUIRE_DEVICE void CopyTile(const Thread& thread, const Params& p, const DecodeItem& item, int32_t tile,
                                    int32_t num_tiles, int64_t slots) {
    if (tile < num_tiles) {
      constexpr int kRowsAtOnce = kWarpSize / Tile::kUnits;
      const int unit = thread.lane() % Tile::kUnits, first_row = thread.lane() / Tile::kUnits;
      const bool has_unit = unit * Tile::kUnitElements < p.kv.head_dim;
      const int32_t begin = WarpBegin(thread, item, tile);
      char* stage = thread.shared() + kStagesOffset + tile % kStages * kStageBytes;
      QUIRE_UNROLL
      for (int eight = 0; eight < 2; ++eight) {
        const int64_t from = thread.Shuffle(slots, eight) + unit * Tile::kUnitElements;
        QUIRE_UNROLL
        for (int r = 0; r < 8; r += kRowsAtOnce) {
          const int row = eight * 8 + r + first_row;
          const bool valid = begin + row >= item.begin && begin + row < item.end && has_unit;
          const int64_t element = from + int64_t{r + first_row} * p.kv.head_dim;
          char* to = stage + Tile::UnitOffset(thread.warp() * kWarpRows + row, unit);
          thread.CopyAsync16(to, static_cast<const E*>(p.kv.k) + element, valid);
          thread.CopyAsync16(to + kTileBytes, static_cast<const E*>(p.kv.v) + element, valid);
        }
      }
    }
    thread.CommitCopies();
  }

  static QUIRE_DEVICE bool Sees(const DecodeItem& item, int32_t position) {
    return position >= item.begin && position < item.end;
  }

  // One tile's 16 positions of this warp, the first at `begin`: the online softmax (Milakov and Gimelshein 2018).
  template <typename Thread>
  static QUIRE_DEVICE void AttendTile(const Thread& thread, const Params& p, const DecodeItem& item, const char* stage,
                                      int32_t begin, int32_t q_head, State& state) {
    const int row = thread.warp() * kWarpRows;
    float scores[kTiles8][4];
    QUIRE_UNROLL
    for (int n = 0; n < kTiles8; ++n) {
      QUIRE_UNROLL
      for (int e = 0; e < 4; ++e) scores[n][e] = 0;
    }
    QUIRE_UNROLL
    for (int pair = 0; pair < kDimSteps / 2; ++pair) {
      uint32_t keys[2][4];
      Tile::LoadRows(thread, stage, row, 2 * pair, keys[0]);
      Tile::LoadRows(thread, stage, row, 2 * pair + 1, keys[1]);
      QUIRE_UNROLL
      for (int n = 0; n < kTiles8; ++n) {
        uint32_t queries[4];
        Tile::LoadColumns(thread, thread.shared(), 8 * n, pair, queries);
        thread.template MultiplyAdd<E>(scores[n], keys[0], queries[0], queries[1]);
        thread.template MultiplyAdd<E>(scores[n], keys[1], queries[2], queries[3]);
      }
    }

    uint32_t weights[kTiles8][2];  // B fragments of P^T: positions by heads
    const int i = thread.lane() / 4;
    QUIRE_UNROLL
    for (int n = 0; n < kTiles8; ++n) {
      float alpha[2];
      QUIRE_UNROLL
      for (int e = 0; e < 2; ++e) {
        float& low = scores[n][e];  // of position begin + i
        float& high = scores[n][e + 2];
        const int32_t head = Min(q_head + 8 * n + thread.lane() % 4 * 2 + e, p.q_heads - 1);  // or one that is dropped
        low = Sees(item, begin + i) ? p.rule(low, begin + i, head) : kNegativeInfinity;
        high = Sees(item, begin + i + 8) ? p.rule(high, begin + i + 8, head) : kNegativeInfinity;
        float max = Max(low, high);
        QUIRE_UNROLL
        for (int mask = 4; mask < kWarpSize; mask *= 2) max = Max(max, thread.ShuffleXor(max, mask));
        max = Max(state.max[n][e], max);
        const float base = max == kNegativeInfinity ? 0.0f : max;  // no position yet: 2^(-inf - 0) = 0
        alpha[e] = Exp2(state.max[n][e] - base);
        state.max[n][e] = max;
        low = Exp2(low - base);
        high = Exp2(high - base);
      }
      const uint32_t low = Pack<E>(scores[n][0], scores[n][1]), high = Pack<E>(scores[n][2], scores[n][3]);
      // The denominator sums what the numerator is multiplied by: the rounded weights.
      state.sum[n][0] = state.sum[n][0] * alpha[0] + (UnpackLow<E>(low) + UnpackLow<E>(high));
      state.sum[n][1] = state.sum[n][1] * alpha[1] + (UnpackHigh<E>(low) + UnpackHigh<E>(high));
      QUIRE_UNROLL
      for (int d = 0; d < kDimSteps; ++d) {
        QUIRE_UNROLL
        for (int e = 0; e < 4; ++e) state.out[d][n][e] *= alpha[e % 2];
      }
      weights[n][0] = thread.Transpose(low);
      weights[n][1] = thread.Transpose(high);
    }

    QUIRE_UNROLL
    for (int d = 0; d < kDimSteps; ++d) {
      uint32_t values[4];
      Tile::LoadDims(thread, stage + kTileBytes, row, d, values);
      QUIRE_UNROLL
      for (int n = 0; n < kTiles8; ++n)
        thread.template MultiplyAdd<E>(state.out[d][n], values, weights[n][0], weights[n][1]);
    }
  }

  static QUIRE_DEVICE WarpResult* Results(char* shared) {
    return reinterpret_cast<WarpResult*>(shared + kStagesOffset);
  }

  template <typename Thread>
  static QUIRE_DEVICE void StoreWarpResult(const Thread& thread, const State& state) {
    WarpResult& result = Results(thread.shared())[thread.warp()];
    const int i = thread.lane() / 4, j = thread.lane() % 4 * 2;
    QUIRE_UNROLL
    for (int n = 0; n < kTiles8; ++n) {
      QUIRE_UNROLL
      for (int e = 0; e < 2; ++e) {
        float sum = state.sum[n][e];
        QUIRE_UNROLL
        for (int mask = 4; mask < kWarpSize; mask *= 2) sum += thread.ShuffleXor(sum, mask);
        if (i == 0) {
          result.max[8 * n + j + e] = state.max[n][e];
          result.sum[8 * n + j + e] = sum;
        }
      }
      QUIRE_UNROLL
      for (int d = 0; d < kDimSteps; ++d) {
        QUIRE_UNROLL
        for (int e = 0; e < 4; ++e) result.out[8 * n + j + e % 2][16 * d + i + e / 2 * 8] = state.out[d][n][e];
      }
    }
  }

  // The warps' results become the row's, or its split's; whoever brings the last split of a row makes the row's.
  template <typename Thread>
  static QUIRE_DEVICE void Merge(const Thread& thread, const Params& p, const DecodeItem& item, int32_t index,
                                 int32_t q_head, int32_t num_heads) {
    const WarpResult* results = Results(thread.shared());
    const int64_t partial = int64_t{index} * p.q_heads + q_head;
    for (int i = thread.thread(); i < num_heads * kDim; i += kThreads) {
      const int h = i / kDim, d = i % kDim;
      float max = kNegativeInfinity, sum = 0, out = 0;
      QUIRE_UNROLL
      for (int w = 0; w < kWarps; ++w) max = Max(max, results[w].max[h]);
      const float base = max == kNegativeInfinity ? 0.0f : max;
      QUIRE_UNROLL
      for (int w = 0; w < kWarps; ++w) {
        const float factor = Exp2(results[w].max[h] - base);
        sum += factor * results[w].sum[h];
        out += factor * results[w].out[h][d];
      }
      if (d >= p.kv.head_dim) continue;
      if (item.num_splits == 1) {
        StoreOut(p.out, p.out_dtype, item.row * p.out_stride + int64_t{q_head + h} * p.kv.head_dim + d,
                 out / p.rule.WithSink(sum, base, q_head + h));
        continue;
      }
      p.plan.partial_out[(partial + h) * p.kv.head_dim + d] = out;
      if (d == 0) {
        p.plan.partial_max[partial + h] = max;
        p.plan.partial_sum[partial + h] = sum;
      }
    }
    if (item.num_splits > 1 && IsLast(thread, p, item, q_head)) MergeSplits(thread, p, item, q_head, num_heads);
  }

  // Whether all splits of the row have arrived, for these heads: true in one CTA, which then sees what the others
  // wrote.
  template <typename Thread>
  static QUIRE_DEVICE bool IsLast(const Thread& thread, const Params& p, const DecodeItem& item, int32_t q_head) {
    auto* shared_is_last = reinterpret_cast<int32_t*>(thread.shared() + kItemOffset) + 1;
    thread.Fence();
    thread.Sync();
    if (thread.thread() == 0) {
      int32_t* num_arrived = p.plan.num_arrived + int64_t{item.first_item} * p.q_heads + q_head;
      *shared_is_last = thread.AtomicAdd(num_arrived, 1) == item.num_splits - 1;
      if (*shared_is_last) *num_arrived = 0;
    }
    thread.Sync();
    thread.Fence();
    return *shared_is_last != 0;
  }

  template <typename Thread>
  static QUIRE_DEVICE void MergeSplits(const Thread& thread, const Params& p, const DecodeItem& item, int32_t q_head,
                                       int32_t num_heads) {
    for (int i = thread.thread(); i < num_heads * p.kv.head_dim; i += kThreads) {
      const int h = i / p.kv.head_dim, d = i % p.kv.head_dim;
      float max = kNegativeInfinity, sum = 0, out = 0;
      for (int32_t s = 0; s < item.num_splits; ++s) {
        const int64_t partial = int64_t{item.first_item + s} * p.q_heads + q_head + h;
        const float split_max = p.plan.partial_max[partial];
        const float new_max = Max(max, split_max);
        const float base = new_max == kNegativeInfinity ? 0.0f : new_max;
        const float before = Exp2(max - base), factor = Exp2(split_max - base);
        sum = sum * before + factor * p.plan.partial_sum[partial];
        out = out * before + factor * p.plan.partial_out[partial * p.kv.head_dim + d];
        max = new_max;
      }
      StoreOut(p.out, p.out_dtype, item.row * p.out_stride + int64_t{q_head + h} * p.kv.head_dim + d,
               out / p.rule.WithSink(sum, max, q_head + h));
    }
  }
};

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_CUDA_DECODE_CUH_
