// The work list of paged attention on CUDA, built on the device once a step: every layer of the step uses it.
//
// Chunks of one row (decodes) become items of the decode kernel: a range of the context, [begin, end), of one row.
// Contexts are split so that the items times the heads fill the device once, or, where the rows alone fill it, into
// pieces short enough that the last ones to run do not leave it idle. Splits begin at multiples of kTileTokens. Longer
// chunks become tiles of packed rows for the prefill kernel, those with the longest context first.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_CUDA_PLAN_CUH_
#define QUIRE_KERNELS_PAGED_ATTENTION_CUDA_PLAN_CUH_

#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"
#include "kernels/paged_attention/cuda.h"

namespace quire::cuda {

struct AttentionPlanKernel {
  struct Params {
    const AttentionChunk* chunks;  // [num_chunks]
    int32_t num_chunks;
    // Decode items may be as many as fit `num_ctas` at once: items * decode_heads <= num_ctas, if a row can be split.
    int32_t num_ctas;
    int32_t decode_heads;   // items of the decode kernel for each range: kv_heads * slices of a group
    int32_t window;         // of the attention; 0: none
    int32_t rows_per_tile;  // rows of a chunk in a tile of the prefill kernel
    bool decode_by_tiles;   // --deterministic: one kernel, one order of summation for every row
    AttentionPlan plan;
  };
  static constexpr int kThreads = 256;
  static constexpr int kMinCtas = 1;

  // How long an item may be at least and, where rows abound, at most, in tiles.
  static constexpr int32_t kMinSplitTiles = 2;
  static constexpr int32_t kLongSplitTiles = 4;
  static constexpr int32_t kWaves = 4;

  struct Shared {
    int32_t sums[kThreads / kWarpSize];
    int32_t warp_sums[kThreads / kWarpSize];
  };
  static constexpr int kSharedBytes = static_cast<int>(sizeof(Shared));

  static QUIRE_DEVICE bool IsDecode(const Params& p, const AttentionChunk& chunk) {
    return chunk.num_rows == 1 && !p.decode_by_tiles;
  }
  static QUIRE_DEVICE int32_t FirstTile(const Params& p, const AttentionChunk& chunk) {
    return FirstVisible(chunk.first_position, p.window) / kTileTokens;
  }
  static QUIRE_DEVICE int32_t NumTiles(const Params& p, const AttentionChunk& chunk) {
    return CeilDiv(chunk.first_position + chunk.num_rows, kTileTokens) - FirstTile(p, chunk);
  }

  // The sum of f(chunk) over all chunks.
  template <typename Thread, typename Function>
  static QUIRE_DEVICE int32_t SumOver(const Thread& thread, const Params& p, Shared* shared, const Function& f) {
    int32_t sum = 0;
    for (int32_t c = thread.thread(); c < p.num_chunks; c += kThreads) sum += f(p.chunks[c]);
    return ReduceCta<Sum>(thread, sum, shared->sums);
  }

  // Of each thread's count, the sum of those before it; `total` grows by the sum of all.
  template <typename Thread>
  static QUIRE_DEVICE int32_t SumBefore(const Thread& thread, int32_t count, Shared* shared, int32_t* total) {
    int32_t inclusive = count;
    for (int delta = 1; delta < kWarpSize; delta *= 2) {
      const int32_t other = thread.ShuffleUp(inclusive, delta);
      if (thread.lane() >= delta) inclusive += other;
    }
    if (thread.lane() == kWarpSize - 1) shared->warp_sums[thread.warp()] = inclusive;
    thread.Sync();
    int32_t before = *total;
    for (int w = 0; w < kThreads / kWarpSize; ++w) {
      if (w < thread.warp()) before += shared->warp_sums[w];
      *total += shared->warp_sums[w];
    }
    thread.Sync();
    return before + inclusive - count;
  }

  // Tiles of a split.
  template <typename Thread>
  static QUIRE_DEVICE int32_t SplitTiles(const Thread& thread, const Params& p, Shared* shared) {
    const auto tiles_of = [&](const AttentionChunk& chunk) { return IsDecode(p, chunk) ? NumTiles(p, chunk) : 0; };
    const int32_t num_rows =
        SumOver(thread, p, shared, [&](const AttentionChunk& chunk) { return IsDecode(p, chunk) ? 1 : 0; });
    const int32_t num_tiles = SumOver(thread, p, shared, tiles_of);
    const int32_t max_items = Max(p.num_ctas / p.decode_heads, 1);
    if (num_rows >= max_items) {
      return Max(kLongSplitTiles, CeilDiv(num_tiles, kWaves * max_items));
    }
    int32_t low = kMinSplitTiles, high = Max(num_tiles, low);  // the answer is in [low, high]
    while (low < high) {
      const int32_t middle = low + (high - low) / 2;
      const int32_t items =
          SumOver(thread, p, shared, [&](const AttentionChunk& chunk) { return CeilDiv(tiles_of(chunk), middle); });
      if (items <= max_items) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }

  template <typename Thread>
  static QUIRE_DEVICE void Run(const Thread& thread, const Params& p) {
    auto* shared = reinterpret_cast<Shared*>(thread.shared());
    const int32_t split_tiles = SplitTiles(thread, p, shared);
    int32_t num_decode = 0, num_prefill = 0;
    for (int32_t begin = 0; begin < p.num_chunks; begin += kThreads) {
      const int32_t c = begin + thread.thread();
      AttentionChunk chunk{nullptr, 0, 0, 0};  // of no rows: gives no items
      if (c < p.num_chunks) chunk = p.chunks[c];
      const bool is_decode = IsDecode(p, chunk);
      const int32_t splits = is_decode ? CeilDiv(NumTiles(p, chunk), split_tiles) : 0;
      const int32_t tiles = is_decode ? 0 : CeilDiv(chunk.num_rows, p.rows_per_tile);
      const int32_t first_split = SumBefore(thread, splits, shared, &num_decode);
      const int32_t first_tile = SumBefore(thread, tiles, shared, &num_prefill);
      const BlockId* table = chunk.block_table;
      for (int32_t s = 0; s < splits; ++s) {
        const int32_t tile_begin = (FirstTile(p, chunk) + s * split_tiles) * kTileTokens;
        p.plan.decode_items[first_split + s] = {table,
                                                chunk.first_row,
                                                tile_begin,
                                                Max(tile_begin, FirstVisible(chunk.first_position, p.window)),
                                                Min(tile_begin + split_tiles * kTileTokens, chunk.first_position + 1),
                                                s,
                                                splits,
                                                first_split};
      }
      for (int32_t t = 0; t < tiles; ++t) {
        const int32_t first = t * p.rows_per_tile;
        p.plan.prefill_items[first_tile + tiles - 1 - t] = {
            table, chunk.first_row + first, Min(p.rows_per_tile, chunk.num_rows - first), chunk.first_position + first};
      }
    }
    if (thread.thread() == 0) {
      p.plan.counters->num_decode = num_decode;
      p.plan.counters->num_prefill = num_prefill;
    }
  }
};

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_CUDA_PLAN_CUH_
