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
// CTAs take items from a counter until there are none. KV is read once, in runs of a slot (head_dim elements) or, of
// records, of eight slots; positions beyond the item's end are minus infinity in the scores, and their values weigh
// nothing.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_CUDA_DECODE_CUH_
#define QUIRE_KERNELS_PAGED_ATTENTION_CUDA_DECODE_CUH_

#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"
#include "kernels/paged_attention/cuda.h"
#include "kernels/paged_attention/cuda_decode_tiles.cuh"
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

// Tiles: how the cache keeps its elements (cuda_decode_tiles.cuh). kTiles8: heads of a CTA, in eights.
template <typename Tiles, int kTiles8>
struct DecodeKernel {
  using Params = DecodeParams;
  using E = typename Tiles::Operand;
  static constexpr int kThreads = 128;
  static constexpr int kWarps = kThreads / kWarpSize;
  static constexpr int kHeads = 8 * kTiles8;
  static constexpr int kStages = Tiles::kStages;
  static constexpr int kMinCtas = Tiles::kMinCtas;
  static constexpr int kDimSteps = Tiles::kSteps;
  static constexpr int kDim = 16 * kDimSteps;  // head_dim, rounded up
  static_assert(kTileTokens == kWarps * kWarpTokens);

  // What is in shared memory: the queries, the item's number, then the stages; after the last tile, in place of the
  // stages, each warp's results.
  static constexpr int kItemOffset = Tiles::QueryBytes(kHeads);
  static constexpr int kStagesOffset = kItemOffset + 128;
  struct WarpResult {
    float max[kHeads], sum[kHeads];
    float out[kHeads][kDim + 4];  // so that the heads of four lanes are in different banks
  };
  static constexpr int kSharedBytes =
      kStagesOffset + Max(kStages * Tiles::kStageBytes, kWarps* static_cast<int>(sizeof(WarpResult)));
  static_assert(kMinCtas * (kSharedBytes + kReservedSharedBytes) <= kHopperSharedBytes);

  // What a lane knows of its warp's part of an item. Heads j, j + 1 of each eight, j = 2 * (lane % 4).
  struct State {
    float out[kDimSteps][kTiles8][4];  // fragments of O^T: dims by heads
    float max[kTiles8][2];             // so far, of the scaled scores; the same in all lanes of a column
    float sum[kTiles8][2];             // this lane's part
  };

  template <typename Thread>
  static QUIRE_DEVICE void Run(const Thread& thread, const Params& p) {
    auto* shared_next = reinterpret_cast<int32_t*>(thread.shared() + kItemOffset);
    AttentionCounters* counters = p.plan.counters;
    const int32_t heads = p.kv.kv_heads * p.num_slices;
    // The first item is the CTA's own, and the number of the next is asked for while it works: nobody waits for them.
    int32_t i = thread.cta();
    DecodeItem item = p.plan.decode_items[i / heads];  // of the last step, where there is none
    const int32_t num_items = counters->num_decode * heads;
    while (i < num_items) {
      const int32_t next = thread.thread() == 0 ? thread.num_ctas() + thread.AtomicAdd(&counters->next, 1) : 0;
      RunItem(thread, p, item, i / heads, i % heads);
      if (thread.thread() == 0) *shared_next = next;
      thread.Sync();
      i = *shared_next;
      if (i < num_items) item = p.plan.decode_items[i / heads];
    }
    // The last to find nothing leaves the counters as they were for the next layer.
    if (thread.thread() == 0 && thread.AtomicAdd(&counters->num_done, 1) == thread.num_ctas() - 1) {
      counters->next = 0;
      counters->num_done = 0;
    }
  }

  template <typename Thread>
  static QUIRE_DEVICE void RunItem(const Thread& thread, const Params& p, const DecodeItem& item, int32_t index,
                                   int32_t head) {
    const int32_t kv_head = head / p.num_slices, first = head % p.num_slices * kHeads;  // head of the group
    const int32_t num_heads = Min(kHeads, p.group - first);

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
    AttendItem(thread, p, item, kv_head, kv_head * p.group + first, num_heads, state);
    thread.template WaitForCopies<0>();
    thread.Sync();  // nobody reads the stages any more
    StoreWarpResult(thread, p, state);
    thread.Sync();
    Merge(thread, p, item, index, kv_head * p.group + first, num_heads);
  }

  template <typename Thread>
  static QUIRE_DEVICE void LoadQueries(const Thread& thread, const Params& p, int32_t row, int32_t q_head,
                                       int32_t num_heads) {
    const float* q = p.q + row * p.q_stride + int64_t{q_head} * p.kv.head_dim;
    for (int i = thread.thread(); i < kHeads * kDim; i += kThreads) {
      const int h = i / kDim, d = i % kDim;
      Tiles::StoreQuery(thread.shared(), h, d, p.kv.head_dim,
                        h < num_heads && d < p.kv.head_dim ? q[int64_t{h} * p.kv.head_dim + d] : 0.0f);
    }
  }

  // The positions that this warp owns of a tile begin here.
  template <typename Thread>
  static QUIRE_DEVICE int32_t WarpBegin(const Thread& thread, const DecodeItem& item, int32_t tile) {
    return item.tile_begin + tile * kTileTokens + thread.warp() * kWarpTokens;
  }

  template <typename Thread>
  static QUIRE_DEVICE void AttendItem(const Thread& thread, const Params& p, const DecodeItem& item, int32_t kv_head,
                                      int32_t q_head, int32_t num_heads, State& state) {
    const int32_t num_tiles = CeilDiv(item.end - item.tile_begin, kTileTokens);
    // Even lanes know where the warp's first eight positions of the next tile lie, odd lanes the other eight.
    const auto slots_of = [&](int32_t tile) {
      return Tiles::Slots(p.kv, item.block_table, kv_head, WarpBegin(thread, item, tile) + thread.lane() % 2 * 8,
                          item.begin, item.end);
    };
    int64_t slots = slots_of(0);
    for (int s = 0; s < kStages - 1; ++s) {
      CopyTile(thread, p, item, s, num_tiles, slots);
      slots = slots_of(s + 1);
    }
    LoadQueries(thread, p, item.row, q_head, num_heads);  // while keys and values are on their way
    thread.Sync();
    for (int32_t tile = 0; tile < num_tiles; ++tile) {
      thread.template WaitForCopies<kStages - 2>();
      thread.SyncWarp();
      CopyTile(thread, p, item, tile + kStages - 1, num_tiles, slots);
      slots = slots_of(tile + kStages);
      AttendTile(thread, p, item, Stage(thread, tile), WarpBegin(thread, item, tile), q_head, state);
    }
  }

  template <typename Thread>
  static QUIRE_DEVICE char* Stage(const Thread& thread, int32_t tile) {
    return thread.shared() + kStagesOffset + tile % kStages * Tiles::kStageBytes;
  }

  // Starts the copy of this warp's part of a tile, and commits it: a group of its own, be it empty.
  template <typename Thread>
  static QUIRE_DEVICE void CopyTile(const Thread& thread, const Params& p, const DecodeItem& item, int32_t tile,
                                    int32_t num_tiles, int64_t slots) {
    if (tile < num_tiles)
      Tiles::Copy(thread, p.kv, {WarpBegin(thread, item, tile), item.begin, item.end}, slots, Stage(thread, tile));
    thread.CommitCopies();
  }

  static QUIRE_DEVICE bool Sees(const DecodeItem& item, int32_t position) {
    return position >= item.begin && position < item.end;
  }

  // One tile's 16 positions of this warp, the first at `begin`: the online softmax (Milakov and Gimelshein 2018).
  template <typename Thread>
  static QUIRE_DEVICE void AttendTile(const Thread& thread, const Params& p, const DecodeItem& item, const char* stage,
                                      int32_t begin, int32_t q_head, State& state) {
    float scores[kTiles8][4];
    QUIRE_UNROLL
    for (int n = 0; n < kTiles8; ++n) {
      QUIRE_UNROLL
      for (int e = 0; e < 4; ++e) scores[n][e] = 0;
    }
    Tiles::Scores(thread, p.kv, thread.shared(), stage, scores);

    const int i = thread.lane() / 4;
    const int32_t position = begin + Tiles::Position(i), next = begin + Tiles::NextPosition(i);
    const bool sees = Sees(item, position), sees_next = Sees(item, next);
    [[maybe_unused]] float scale = 0, next_scale = 0;  // of V
    if constexpr (Tiles::kHasScales) {
      if (sees) scale = Tiles::ValueScale(thread, p.kv, stage, Tiles::Position(i));
      if (sees_next) next_scale = Tiles::ValueScale(thread, p.kv, stage, Tiles::NextPosition(i));
    }
    uint32_t weights[kTiles8][2];  // B fragments of P^T: positions by heads
    QUIRE_UNROLL
    for (int n = 0; n < kTiles8; ++n) {
      float alpha[2];
      QUIRE_UNROLL
      for (int e = 0; e < 2; ++e) {
        float& low = scores[n][e];                                                            // of position
        float& high = scores[n][e + 2];                                                       // of next
        const int32_t head = Min(q_head + 8 * n + thread.lane() % 4 * 2 + e, p.q_heads - 1);  // or one that is dropped
        low = sees ? p.rule(low, position, head) : kNegativeInfinity;
        high = sees_next ? p.rule(high, next, head) : kNegativeInfinity;
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
      uint32_t low, high;
      QUIRE_UNROLL
      for (int e = 0; e < 2; ++e) state.sum[n][e] *= alpha[e];
      if constexpr (Tiles::kHasScales) {
        QUIRE_UNROLL
        for (int e = 0; e < 2; ++e) state.sum[n][e] += scores[n][e] + scores[n][e + 2];
        low = Pack<E>(scores[n][0] * scale, scores[n][1] * scale);
        high = Pack<E>(scores[n][2] * next_scale, scores[n][3] * next_scale);
      } else {
        low = Pack<E>(scores[n][0], scores[n][1]);
        high = Pack<E>(scores[n][2], scores[n][3]);
        // The denominator sums what the numerator is multiplied by: the rounded weights.
        state.sum[n][0] += UnpackLow<E>(low) + UnpackLow<E>(high);
        state.sum[n][1] += UnpackHigh<E>(low) + UnpackHigh<E>(high);
      }
      QUIRE_UNROLL
      for (int d = 0; d < kDimSteps; ++d) {
        QUIRE_UNROLL
        for (int e = 0; e < 4; ++e) state.out[d][n][e] *= alpha[e % 2];
      }
      weights[n][0] = thread.Transpose(low);
      weights[n][1] = thread.Transpose(high);
    }

    Tiles::AddValues(thread, p.kv, stage, weights, state.out);
  }

  static QUIRE_DEVICE WarpResult* Results(char* shared) {
    return reinterpret_cast<WarpResult*>(shared + kStagesOffset);
  }

  template <typename Thread>
  static QUIRE_DEVICE void StoreWarpResult(const Thread& thread, const Params& p, const State& state) {
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
        for (int e = 0; e < 4; ++e) {
          const int dim = Tiles::Dim(d, i, e / 2, p.kv.head_dim);
          if (dim < kDim) result.out[8 * n + j + e % 2][dim] = state.out[d][n][e];
        }
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
  // wrote. One thread's fences do for all: before it counts, it has met the others at the barrier; after it has
  // counted, they meet it.
  template <typename Thread>
  static QUIRE_DEVICE bool IsLast(const Thread& thread, const Params& p, const DecodeItem& item, int32_t q_head) {
    auto* shared_is_last = reinterpret_cast<int32_t*>(thread.shared() + kItemOffset) + 1;
    thread.Sync();
    if (thread.thread() == 0) {
      int32_t* num_arrived = p.plan.num_arrived + int64_t{item.first_item} * p.q_heads + q_head;
      thread.Fence();
      *shared_is_last = thread.AtomicAdd(num_arrived, 1) == item.num_splits - 1;
      thread.Fence();
      if (*shared_is_last) *num_arrived = 0;
    }
    thread.Sync();
    return *shared_is_last != 0;
  }

  // Four dims to a thread, and the loads of several splits at once: they come from the L2, one after another would take
  // longer than the splits saved.
  template <typename Thread>
  static QUIRE_DEVICE void MergeSplits(const Thread& thread, const Params& p, const DecodeItem& item, int32_t q_head,
                                       int32_t num_heads) {
    constexpr int kDims = 4, kAtOnce = 4;
    struct alignas(16) Dims {
      float x[kDims];
    };
    const int32_t quarters = p.kv.head_dim / kDims;
    for (int i = thread.thread(); i < num_heads * quarters; i += kThreads) {
      const int h = i / quarters, d = i % quarters * kDims;
      float max = kNegativeInfinity, sum = 0, out[kDims] = {};
      for (int32_t begin = 0; begin < item.num_splits; begin += kAtOnce) {
        float split_max[kAtOnce], split_sum[kAtOnce];
        Dims split_out[kAtOnce];
        QUIRE_UNROLL
        for (int s = 0; s < kAtOnce; ++s) {
          const int64_t partial =
              int64_t{item.first_item + Min(begin + s, item.num_splits - 1)} * p.q_heads + q_head + h;
          split_max[s] = begin + s < item.num_splits ? p.plan.partial_max[partial] : kNegativeInfinity;
          split_sum[s] = p.plan.partial_sum[partial];
          split_out[s] = *reinterpret_cast<const Dims*>(p.plan.partial_out + partial * p.kv.head_dim + d);
        }
        QUIRE_UNROLL
        for (int s = 0; s < kAtOnce; ++s) {
          if (begin + s >= item.num_splits) break;
          const float new_max = Max(max, split_max[s]);
          const float base = new_max == kNegativeInfinity ? 0.0f : new_max;
          const float before = Exp2(max - base), factor = Exp2(split_max[s] - base);
          sum = sum * before + factor * split_sum[s];
          QUIRE_UNROLL
          for (int e = 0; e < kDims; ++e) out[e] = out[e] * before + factor * split_out[s].x[e];
          max = new_max;
        }
      }
      sum = p.rule.WithSink(sum, max, q_head + h);
      QUIRE_UNROLL
      for (int e = 0; e < kDims; ++e) {
        StoreOut(p.out, p.out_dtype, item.row * p.out_stride + int64_t{q_head + h} * p.kv.head_dim + d + e,
                 out[e] / sum);
      }
    }
  }
};

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_CUDA_DECODE_CUH_
