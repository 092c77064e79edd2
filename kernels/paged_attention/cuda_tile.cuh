// A tile of K or V in shared memory, as the decode and the prefill kernel share it: rows of kDim elements, one for each
// position, in units of 16 bytes that are permuted within a row so that the eight rows of a matrix lie in different
// banks.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_CUDA_TILE_CUH_
#define QUIRE_KERNELS_PAGED_ATTENTION_CUDA_TILE_CUH_

#include "kernels/cuda/numbers.h"
#include "kernels/paged_attention/cuda.h"

namespace quire::cuda {

constexpr int kUnitBytes = 16;

// Of an SM of compute capability 9.0, and what the system takes of it for each CTA.
constexpr int kHopperSharedBytes = 228 * 1024, kReservedSharedBytes = 1024;

// E: element of the cache. kDim: head_dim rounded up to 64, 128 or 256; what is beyond head_dim is zero.
template <typename E, int kDim>
struct KvTile {
  static constexpr int kUnits = kDim * static_cast<int>(sizeof(E)) / kUnitBytes;  // of a row
  static constexpr int kUnitElements = kUnitBytes / static_cast<int>(sizeof(E));
  static constexpr int kRowBytes = kUnits * kUnitBytes;
  static_assert(kUnits >= 8);

  // Offset in bytes of a unit of a row.
  static QUIRE_DEVICE int UnitOffset(int row, int unit) { return row * kRowBytes + (unit ^ (row % 8)) * kUnitBytes; }

  // A fragment (MultiplyAdd) of rows [row, row + 16) x dims [16 * step, 16 * step + 16): keys as A, or queries.
  template <typename Thread>
  static QUIRE_DEVICE void LoadRows(const Thread& thread, const char* tile, int row, int step, uint32_t (&a)[4]) {
    const int l = thread.lane();
    thread.LoadMatrices(tile + UnitOffset(row + l / 8 % 2 * 8 + l % 8, step * 2 + l / 16), a);
  }
  // Two B fragments of rows [row, row + 8) x dims [32 * pair, 32 * pair + 32), the rows being B's columns:
  // {b[0], b[1]} is of the first 16 dims.
  template <typename Thread>
  static QUIRE_DEVICE void LoadColumns(const Thread& thread, const char* tile, int row, int pair, uint32_t (&b)[4]) {
    const int l = thread.lane();
    thread.LoadMatrices(tile + UnitOffset(row + l % 8, pair * 4 + l / 8), b);
  }
  // A fragment of the transposed tile: dims [16 * step, 16 * step + 16) x rows [row, row + 16): values as A.
  template <typename Thread>
  static QUIRE_DEVICE void LoadDims(const Thread& thread, const char* tile, int row, int step, uint32_t (&a)[4]) {
    const int l = thread.lane();
    thread.LoadMatricesTransposed(tile + UnitOffset(row + l / 16 * 8 + l % 8, step * 2 + l / 8 % 2), a);
  }
  // Two B fragments of rows [row, row + 16) x dims [16 * step, 16 * step + 16), the dims being B's columns: {b[0],
  // b[1]} is of the first 8 dims.
  template <typename Thread>
  static QUIRE_DEVICE void LoadValues(const Thread& thread, const char* tile, int row, int step, uint32_t (&b)[4]) {
    const int l = thread.lane();
    thread.LoadMatricesTransposed(tile + UnitOffset(row + l / 8 % 2 * 8 + l % 8, step * 2 + l / 16), b);
  }

  // Stores a query, rounded.
  static QUIRE_DEVICE void StoreElement(char* tile, int row, int dim, float value) {
    Store(reinterpret_cast<E*>(tile + UnitOffset(row, dim / kUnitElements)) + dim % kUnitElements, value);
  }
};

// Where the slot of a position begins in K and in V, found once for each eight positions: a block holds a multiple of
// eight. `position` is a multiple of 8; nothing is looked up for eight positions all outside [begin, end).
QUIRE_DEVICE int64_t EightSlots(const PagedKv& kv, const BlockId* block_table, int32_t kv_head, int32_t position,
                                int32_t begin, int32_t end) {
  if (position >= end || position + 8 <= begin) return 0;
  return kv.VIndex(block_table[position / kv.block_size], kv_head, position % kv.block_size, 0);
}

// The same of records (kv_record.h) of `record_bytes`, in bytes; kNoSlots where nothing is looked up.
constexpr int64_t kNoSlots = -1;
QUIRE_DEVICE int64_t RecordSlots(const PagedKv& kv, const BlockId* block_table, int32_t kv_head, int32_t position,
                                 int32_t begin, int32_t end, int32_t record_bytes) {
  if (position >= end || position + 8 <= begin) return kNoSlots;
  const BlockId block = block_table[position / kv.block_size];
  return ((int64_t{block} * kv.kv_heads + kv_head) * kv.block_size + position % kv.block_size) * record_bytes;
}

// From a dot product to a score, times log2(e), as paged_attention.h says: what families add is uniform over a launch.
struct ScoreRule {
  float scale;
  bool is_plain;              // neither ALiBi nor a soft cap
  float softcap;              // 0: none
  const float* sinks;         // [q_heads], or nullptr
  const float* alibi_slopes;  // [q_heads], or nullptr
  int32_t window;             // 0: all

  QUIRE_DEVICE float operator()(float dot, int32_t position, int32_t q_head) const {
    if (is_plain) return dot * (scale * kLog2E);
    if (alibi_slopes != nullptr) {
      BFloat16 at, bias;
      Store(&at, static_cast<float>(position));
      Store(&bias, MultiplyRounded(alibi_slopes[q_head], Load(&at)));
      dot = AddRounded(dot, Load(&bias));
    }
    const float score = MultiplyRounded(scale, dot);
    return (softcap > 0 ? softcap * Tanh(score / softcap) : score) * kLog2E;
  }
  // The sum of the weights, relative to 2^max, with what the head's sink adds; whose weight is of no value.
  QUIRE_DEVICE float WithSink(float sum, float max, int32_t q_head) const {
    return sinks == nullptr ? sum : sum + Exp2(sinks[q_head] * kLog2E - max);
  }
};

QUIRE_DEVICE void StoreOut(void* out, DType dtype, int64_t index, float value) {
  switch (dtype) {
    case DType::kFloat32:
      return Store(static_cast<float*>(out) + index, value);
    case DType::kBFloat16:
      return Store(static_cast<BFloat16*>(out) + index, value);
    case DType::kFloat16:
      return Store(static_cast<Float16*>(out) + index, value);
  }
}

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_CUDA_TILE_CUH_
