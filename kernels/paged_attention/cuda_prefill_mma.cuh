// The products of the prefill kernel (cuda_prefill.cuh) on the tensor cores of sm_80 and later: mma.sync, by warps.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_CUDA_PREFILL_MMA_CUH_
#define QUIRE_KERNELS_PAGED_ATTENTION_CUDA_PREFILL_MMA_CUH_

#include "kernels/cuda/numbers.h"
#include "kernels/paged_attention/cuda.h"
#include "kernels/paged_attention/cuda_tile.cuh"

namespace quire::cuda {

template <typename E, int kDim>
struct MmaProducts {
  using Element = E;
  using Tile = KvTile<E, kDim>;
  static constexpr int kDims = kDim;  // head_dim, rounded up
  static constexpr int kTileBytes = kTileTokens * Tile::kRowBytes;
  static constexpr int kRows = PrefillRows(false);
  // Four warps; of the widest heads eight, each with half of the dims, for a lane has not the registers to sum up more.
  static constexpr int kThreads = kDim == 256 ? 256 : 128;
  static constexpr int kMinCtas = kDim == 256 ? 1 : 2;
  static constexpr int kDimSteps = kDim / 16;
  static constexpr int kTokenSteps = kTileTokens / 16;
  static constexpr int kOutSteps = kDimSteps * (kRows / 16) / (kThreads / kWarpSize);  // of a warp

  template <typename Thread>
  static constexpr bool IsOn() {
    return true;
  }
  // What a lane keeps of the queries: nothing.
  struct Queries {};
  template <typename Thread>
  static QUIRE_DEVICE void Hold(const Thread& thread, const char* tile, int first_row, Queries& queries) {}
  template <typename Thread>
  static QUIRE_DEVICE void MakeVisible(const Thread& thread) {}

  // Of the warp's rows, from first_row on: `scores`, rows by positions, eight of them each.
  template <typename Thread>
  static QUIRE_DEVICE void Score(const Thread& thread, const char* queries_tile, int first_row, Queries&,
                                 const char* keys_tile, float (&scores)[2 * kTokenSteps][4]) {
    QUIRE_UNROLL
    for (int n = 0; n < 2 * kTokenSteps; ++n) {
      QUIRE_UNROLL
      for (int e = 0; e < 4; ++e) scores[n][e] = 0;
    }
    QUIRE_UNROLL
    for (int pair = 0; pair < kDimSteps / 2; ++pair) {
      uint32_t queries[2][4];
      Tile::LoadRows(thread, queries_tile, first_row, 2 * pair, queries[0]);
      Tile::LoadRows(thread, queries_tile, first_row, 2 * pair + 1, queries[1]);
      QUIRE_UNROLL
      for (int n = 0; n < 2 * kTokenSteps; ++n) {
        uint32_t keys[4];
        Tile::LoadColumns(thread, keys_tile, 8 * n, pair, keys);
        thread.template MultiplyAdd<E>(scores[n], queries[0], keys[0], keys[1]);
        thread.template MultiplyAdd<E>(scores[n], queries[1], keys[2], keys[3]);
      }
    }
  }

  // To `out`, rows by dims from first_dim on, eight of them each, what `weights` (A fragments: rows by positions) make
  // of the values.
  template <typename Thread>
  static QUIRE_DEVICE void AddValues(const Thread& thread, uint32_t (&weights)[kTokenSteps][4], const char* values_tile,
                                     int first_dim, float (&out)[2 * kOutSteps][4]) {
    // Units are permuted within eight of them: a part of the dims is found where it would be alone.
    static_assert(kOutSteps == kDimSteps || kOutSteps * 16 % (8 * Tile::kUnitElements) == 0);
    const char* part = values_tile + first_dim * sizeof(E);
    QUIRE_UNROLL
    for (int d = 0; d < kOutSteps; ++d) {
      QUIRE_UNROLL
      for (int t = 0; t < kTokenSteps; ++t) {
        uint32_t values[4];
        Tile::LoadValues(thread, part, 16 * t, d, values);
        thread.template MultiplyAdd<E>(out[2 * d], weights[t], values[0], values[1]);
        thread.template MultiplyAdd<E>(out[2 * d + 1], weights[t], values[2], values[3]);
      }
    }
  }
};

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_CUDA_PREFILL_MMA_CUH_
