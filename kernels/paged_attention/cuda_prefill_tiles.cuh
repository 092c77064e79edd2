// How the prefill kernel (cuda_prefill.cuh) takes a cache: ElementChunkTiles of elements, CodeChunkTiles of the records
// of a quantised cache. Both say how all threads of a CTA
//
//   Copy       bring the positions of a tile that are in a range into a stage of shared memory
//   Prepare    where Prepares() says so, make of the stage what Operands() names: two tiles of Products::Element as
//              Products::Tile lays them out, K and then V, in which nothing outside the range counts

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_CUDA_PREFILL_TILES_CUH_
#define QUIRE_KERNELS_PAGED_ATTENTION_CUDA_PREFILL_TILES_CUH_

#include <type_traits>

#include "kernels/cuda/numbers.h"
#include "kernels/paged_attention/cuda.h"
#include "kernels/paged_attention/cuda_codes.cuh"
#include "kernels/paged_attention/cuda_tile.cuh"

namespace quire::cuda {

// The positions of a tile of one KV head, the first a multiple of kTileTokens, and which of them rows may see.
struct ChunkTile {
  int32_t kv_head;
  int32_t position;
  int32_t begin, end;
  bool is_edge;  // some row does not see all of the tile
};

// Of each position of the tile that Prepare made: whether its value has numbers that are not finite, which are taken
// out where some rows do not see them. And what its dot products and its weights are to be multiplied by.
struct TileMarks {
  int32_t not_finite[kTileTokens];                         // defined for tiles that are an edge
  float key_scale[kTileTokens], value_scale[kTileTokens];  // of records
};

struct alignas(kUnitBytes) TileUnit {
  uint32_t pairs[4];
};

// ProductsOfChunks: MmaProducts or WgmmaProducts, of the cache's elements.
template <typename ProductsOfChunks>
struct ElementChunkTiles {
  using Products = ProductsOfChunks;
  using E = typename Products::Element;
  using Tile = typename Products::Tile;
  static constexpr bool kHasScales = false;
  static constexpr int kStageBytes = 2 * Products::kTileBytes;
  static constexpr int kPreparedBytes = 0;  // tiles are made in place
  static constexpr int kThreads = Products::kThreads, kThreadsOfRow = kThreads / kTileTokens;

  template <typename Thread>
  static QUIRE_DEVICE void Copy(const Thread& thread, const PagedKv& kv, const BlockId* block_table,
                                const ChunkTile& tile, char* stage) {
    constexpr int kRowsAtOnce = kThreads / Tile::kUnits;
    const int64_t slots =
        EightSlots(kv, block_table, tile.kv_head, tile.position + thread.lane() % 8 * 8, tile.begin, tile.end);
    const int unit = thread.thread() % Tile::kUnits;
    const bool has_unit = unit * Tile::kUnitElements < kv.head_dim;
    QUIRE_NO_UNROLL  // the accumulators need the registers
        for (int r = 0; r < kTileTokens; r += kRowsAtOnce) {
      const int row = r + thread.thread() / Tile::kUnits, position = tile.position + row;
      const int64_t element =
          thread.Shuffle(slots, row / 8) + int64_t{row % 8} * kv.head_dim + unit * Tile::kUnitElements;
      const bool valid = position >= tile.begin && position < tile.end && has_unit;
      char* to = stage + Tile::UnitOffset(row, unit);
      thread.CopyAsync16(to, static_cast<const E*>(kv.k) + element, valid);
      thread.CopyAsync16(to + Products::kTileBytes, static_cast<const E*>(kv.v) + element, valid);
    }
  }

  static QUIRE_DEVICE bool Prepares(const ChunkTile& tile) { return tile.is_edge; }
  static QUIRE_DEVICE const char* Operands(const char* stage, const char* prepared) { return stage; }

  // Sets to zero the values of positions that have one that is not finite, and marks them.
  template <typename Thread>
  static QUIRE_DEVICE void Prepare(const Thread& thread, const PagedKv& kv, const ChunkTile& tile, char* stage,
                                   char* prepared, TileMarks* marks) {
    constexpr int kUnits = Tile::kUnits / kThreadsOfRow;  // of a thread
    const int row = thread.thread() / kThreadsOfRow, part = thread.thread() % kThreadsOfRow;
    const auto unit = [&](int i) {
      return reinterpret_cast<TileUnit*>(stage + Products::kTileBytes + Tile::UnitOffset(row, part * kUnits + i));
    };
    int found = 0;
    QUIRE_NO_UNROLL  // the accumulators need the registers
        for (int i = 0; i < kUnits; ++i) {
      const TileUnit elements = *unit(i);
      QUIRE_UNROLL
      for (int j = 0; j < 4; ++j) found |= AnyNotFinite<E>(elements.pairs[j]) ? 1 : 0;
    }
    QUIRE_UNROLL
    for (int mask = 1; mask < kThreadsOfRow; mask *= 2) found |= thread.ShuffleXor(found, mask);
    if (found != 0) {
      QUIRE_NO_UNROLL
      for (int i = 0; i < kUnits; ++i) *unit(i) = {};
    }
    if (part == 0) marks->not_finite[row] = found;
  }
};

// Records come as they lie in the cache, odd ones two bytes beside a word, and become bfloat16 once for all warps;
// their scales stay apart.
template <KvQuantization kQuantization, typename ProductsOfChunks>
struct CodeChunkTiles {
  using Products = ProductsOfChunks;
  using Tile = typename Products::Tile;
  using C = Codes<kQuantization>;
  static_assert(std::is_same_v<typename Products::Element, BFloat16>);
  static constexpr bool kHasScales = true;
  static constexpr int kRecordsBytes = kTileTokens * C::RecordBytes(Products::kDims);
  static constexpr int kStageBytes = 2 * kRecordsBytes;
  static constexpr int kPreparedBytes = 2 * Products::kTileBytes;
  static constexpr int kThreads = Products::kThreads, kParts = kThreads / kTileTokens;

  // A warp takes runs of eight records, of K and then of V. Of eight positions that no row sees, nothing is read.
  template <typename Thread>
  static QUIRE_DEVICE void Copy(const Thread& thread, const PagedKv& kv, const BlockId* block_table,
                                const ChunkTile& tile, char* stage) {
    const int run_bytes = 8 * C::RecordBytes(kv.head_dim);
    const int eight_of_lane = thread.lane() % 8;
    const int64_t slots = RecordSlots(kv, block_table, tile.kv_head, tile.position + eight_of_lane * 8, tile.begin,
                                      tile.end, C::RecordBytes(kv.head_dim));
    for (int run = thread.warp(); run < 2 * kTileTokens / 8; run += kThreads / kWarpSize) {
      const int eight = run % 8, is_value = run / 8;
      const int64_t from = thread.Shuffle(slots, eight);
      if (from == kNoSlots) continue;
      const char* cache = static_cast<const char*>(is_value ? kv.v : kv.k) + from;
      char* to = stage + is_value * kRecordsBytes + eight * run_bytes;
      for (int byte = thread.lane() * kUnitBytes; byte < run_bytes; byte += kWarpSize * kUnitBytes)
        thread.CopyAsync16(to + byte, cache + byte, true);
    }
  }

  static QUIRE_DEVICE bool Prepares(const ChunkTile& tile) { return true; }
  static QUIRE_DEVICE const char* Operands(const char* stage, const char* prepared) { return prepared; }

  // Several threads for a position, each for a part of its dims.
  template <typename Thread>
  static QUIRE_DEVICE void Prepare(const Thread& thread, const PagedKv& kv, const ChunkTile& tile, char* stage,
                                   char* prepared, TileMarks* marks) {
    const int row = thread.thread() % kTileTokens, part = thread.thread() / kTileTokens;
    const int32_t position = tile.position + row;
    const bool counts = position >= tile.begin && position < tile.end;
    const char* key = stage + row * C::RecordBytes(kv.head_dim);
    const char* value = key + kRecordsBytes;
    Expand(kv, key, row, part, prepared);
    Expand(kv, value, row, part, prepared + Products::kTileBytes);
    if (part == 0) {
      marks->key_scale[row] = counts ? ScaleAt(key + C::CodeBytes(kv.head_dim)) : 0;
    } else if (part == 1) {
      const float scale = counts ? ScaleAt(value + C::CodeBytes(kv.head_dim)) : 0;
      const bool found = tile.is_edge && !kv::IsFinite(scale);
      marks->value_scale[row] = found ? 0 : scale;
      marks->not_finite[row] = found ? 1 : 0;
    }
  }

 private:
  // A part of the codes of a record, in units of the tile; what is beyond head_dim becomes zero.
  static QUIRE_DEVICE void Expand(const PagedKv& kv, const char* record, int row, int part, char* to) {
    constexpr int kWords = Tile::kUnitElements / C::kOfWord;  // of a unit
    const int beside = row % 2 * 2;
    const uint32_t selector = beside == 0 ? 0x3210 : 0x5432;
    const char* words = record - beside;
    QUIRE_NO_UNROLL  // the accumulators need the registers
        for (int i = 0; i < Tile::kUnits / kParts; ++i) {
      const int unit = part * (Tile::kUnits / kParts) + i;
      TileUnit elements = {};
      if (unit * Tile::kUnitElements < kv.head_dim) {
        QUIRE_UNROLL
        for (int w = 0; w < kWords; ++w) {
          const char* at = words + (unit * kWords + w) * 4;
          const uint32_t word = PermuteBytes(WordAt(at), WordAt(at + 4), selector);
          QUIRE_UNROLL
          for (int m = 0; m < C::kPairs; m += 2) {
            const uint32_t a = C::Pair(word, m), b = C::Pair(word, m + 1);
            elements.pairs[w * C::kPairs + m / 2] = PermuteBytes(a, b, 0x5410);
            elements.pairs[w * C::kPairs + (m + C::kPairs) / 2] = PermuteBytes(a, b, 0x7632);
          }
        }
      }
      *reinterpret_cast<TileUnit*>(to + Tile::UnitOffset(row, unit)) = elements;
    }
  }
};

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_CUDA_PREFILL_TILES_CUH_
