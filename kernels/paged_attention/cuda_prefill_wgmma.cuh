// The products of the prefill kernel (cuda_prefill.cuh) on Hopper's tensor cores: wgmma, by two warpgroups with 64 rows
// each. Queries and weights are given from registers, keys and values from shared memory, whatever brought them there:
// without TMA, and without warps of other duties.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_CUDA_PREFILL_WGMMA_CUH_
#define QUIRE_KERNELS_PAGED_ATTENTION_CUDA_PREFILL_WGMMA_CUH_

#include "kernels/cuda/numbers.h"
#include "kernels/cuda/shared_matrix.h"
#include "kernels/paged_attention/cuda.h"
#include "kernels/paged_attention/cuda_tile.cuh"

namespace quire::cuda {

// A tile of K or V as wgmma reads it: columns of 64 elements, each a SharedMatrix of kTileTokens rows.
template <typename E, int kDim>
struct ColumnTile {
  static constexpr int kUnits = kDim * static_cast<int>(sizeof(E)) / kUnitBytes;  // of a row
  static constexpr int kUnitElements = kUnitBytes / static_cast<int>(sizeof(E));
  static constexpr int kColumnUnits = SharedMatrix::kRowBytes / kUnitBytes;
  static constexpr int kColumnElements = kColumnUnits * kUnitElements;
  static constexpr int kColumnBytes = kTileTokens * SharedMatrix::kRowBytes;

  // Offset in bytes of a unit of a row.
  static QUIRE_DEVICE int UnitOffset(int row, int unit) {
    return unit / kColumnUnits * kColumnBytes + row * SharedMatrix::kRowBytes +
           (unit % kColumnUnits ^ row % 8) * kUnitBytes;
  }
};

template <typename E, int kDim>
struct WgmmaProducts {
  using Element = E;
  using Tile = ColumnTile<E, kDim>;
  using QueryTile = KvTile<E, kDim>;
  static constexpr int kDims = kDim;  // head_dim, rounded up
  static constexpr int kTileBytes = kTileTokens * kDim * static_cast<int>(sizeof(E));
  static constexpr int kRows = PrefillRows(true);
  static constexpr int kThreads = kRows * 2;  // a warp for 16 rows
  static constexpr int kMinCtas = kDim == 64 ? 2 : 1;
  static constexpr int kDimSteps = kDim / 16;
  static constexpr int kTokenSteps = kTileTokens / 16;
  static constexpr int kOutSteps = kDimSteps;
  static_assert(kTileBytes % SharedMatrix::kAtomBytes == 0 && Tile::kColumnElements == 64 && kTileTokens == 64);

  template <typename Thread>
  static constexpr bool IsOn() {
    return Thread::kHasWarpgroups;
  }
  // What a lane keeps of the queries, A fragments: all of them, or, of the widest heads, those of half the dims.
  static constexpr int kHeldSteps = kDimSteps < 8 ? kDimSteps : 8;
  struct Queries {
    uint32_t a[kHeldSteps][4];
  };
  template <typename Thread>
  static QUIRE_DEVICE void Hold(const Thread& thread, const char* tile, int first_row, Queries& queries) {
    thread.Sync();
    LoadQueries(thread, tile, first_row, 0, queries);
  }
  template <typename Thread>
  static QUIRE_DEVICE void MakeVisible(const Thread& thread) {
    thread.FenceAsyncProxy();
  }

  template <typename Thread>
  static QUIRE_DEVICE void Score(const Thread& thread, const char* queries_tile, int first_row, Queries& queries,
                                 const char* keys_tile, float (&scores)[2 * kTokenSteps][4]) {
    const SharedMatrix keys = thread.Matrix(keys_tile);
    QUIRE_UNROLL
    for (int first = 0; first < kDimSteps; first += kHeldSteps) {
      if constexpr (kHeldSteps < kDimSteps) LoadQueries(thread, queries_tile, first_row, first, queries);
      thread.WarpgroupFence(scores, queries.a);
      QUIRE_UNROLL
      for (int s = 0; s < kHeldSteps; ++s) {
        constexpr int kColumnSteps = Tile::kColumnElements / 16, kStepBytes = 16 * sizeof(E);
        const int step = first + s;
        thread.template MultiplyAdd<E, false>(
            scores, queries.a[s],
            keys.From(step / kColumnSteps * Tile::kColumnBytes + step % kColumnSteps * kStepBytes), step > 0);
      }
      thread.WarpgroupCommit();
      thread.template WarpgroupWait<0>(scores, queries.a);
    }
  }

  template <typename Thread>
  static QUIRE_DEVICE void AddValues(const Thread& thread, uint32_t (&weights)[kTokenSteps][4], const char* values_tile,
                                     int first_dim, float (&out)[2 * kOutSteps][4]) {
    const SharedMatrix values = thread.Matrix(values_tile);
    thread.WarpgroupFence(out, weights);
    QUIRE_UNROLL
    for (int column = 0; column < kDim / Tile::kColumnElements; ++column) {
      QUIRE_UNROLL
      for (int t = 0; t < kTokenSteps; ++t) {
        thread.template MultiplyAdd<E, true>(
            &out[8 * column], weights[t], values.From(column * Tile::kColumnBytes + 16 * t * SharedMatrix::kRowBytes),
            true);
      }
    }
    thread.WarpgroupCommit();
    thread.template WarpgroupWait<0>(out, weights);
  }

 private:
  template <typename Thread>
  static QUIRE_DEVICE void LoadQueries(const Thread& thread, const char* tile, int first_row, int first_step,
                                       Queries& queries) {
    QUIRE_UNROLL
    for (int s = 0; s < kHeldSteps; ++s) QueryTile::LoadRows(thread, tile, first_row, first_step + s, queries.a[s]);
  }
};

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_CUDA_PREFILL_WGMMA_CUH_
