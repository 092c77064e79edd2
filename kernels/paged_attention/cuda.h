// PagedAttention on CUDA: the work list that the device builds, the scratch memory, and the launch. All pointers are
// the device's. Device is CudaDevice, or the emulation's in tests.
//
// Three kernels: `decode` for chunks of one row (cuda_decode.cuh), `prefill` for longer ones (cuda_prefill.cuh: by
// mma.sync or, on Hopper, by wgmma), both on tensor cores, in bfloat16 and float16 with head_dim a multiple of 8, of
// fp8 and int8 of 32, of int4 of 64; `plain` for the rest (cuda_plain.cuh). In `prefill` and `plain` the order of
// summation is a function of a row's position alone; `decode` splits contexts by what runs beside them, so
// --deterministic takes `prefill` for every row.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_CUDA_H_
#define QUIRE_KERNELS_PAGED_ATTENTION_CUDA_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/numbers.h"
#include "kernels/paged_attention/paged_attention.h"
#include "kernels/workspace.h"

namespace quire::cuda {

constexpr int32_t kTileTokens = 64;  // positions of a KV tile, in every kernel
constexpr int32_t kMaxGroup = 64;    // q_heads / kv_heads
constexpr int32_t kMaxDecodeCtasPerSm = 4;

// Packed rows (row, head of the group) of a tile of the prefill kernel.
constexpr int32_t PrefillRows(bool by_wgmma) { return by_wgmma ? 128 : 64; }

// Positions [begin, end) of the context of one row, for one CTA and each head; its tiles are counted from
// tile_begin <= begin, a multiple of kTileTokens.
struct DecodeItem {
  const BlockId* block_table;
  int32_t row;
  int32_t tile_begin, begin, end;
  int32_t split, num_splits;
  int32_t first_item;  // of the row: its splits' partial results are [first_item, first_item + num_splits)
};

// Rows [first_row, first_row + num_rows) at positions first_position, ...
struct PrefillItem {
  const BlockId* block_table;
  int32_t first_row;
  int32_t num_rows;
  int32_t first_position;
};

struct AttentionCounters {
  int32_t num_decode, num_prefill;  // items
  int32_t next;                     // decode item that the next CTA takes; 0 between launches
  int32_t num_done;                 // CTAs that found none; 0 between launches
};

// The work list and the partial results, in the workspace.
struct AttentionPlan {
  AttentionCounters* counters = nullptr;
  DecodeItem* decode_items = nullptr;    // [max_decode_items]
  PrefillItem* prefill_items = nullptr;  // [max_prefill_items]
  int32_t* num_arrived = nullptr;  // [max_decode_items, q_heads]: splits of a row that are done; 0 between launches
  float* partial_out = nullptr;    // [max_decode_items, q_heads, head_dim]: sums of weight * V
  float* partial_max = nullptr;    // [max_decode_items, q_heads]: of the scores, times log2(e)
  float* partial_sum = nullptr;    // [max_decode_items, q_heads]: of the weights
};

// The most shared memory that a CTA of these kernels takes.
size_t AttentionSharedBytes(int32_t head_dim, int32_t group, bool prefills_by_wgmma);

// Bytes of scratch memory, zeroed at start, that PagedAttention needs for calls within `shape`.
size_t AttentionWorkspaceBytes(const WorkspaceShape& shape, int32_t num_sms);
AttentionPlan PlaceAttentionPlan(const WorkspaceShape& shape, int32_t num_sms, void* workspace);

struct AttentionContext {
  AttentionPlan plan;
  bool deterministic = false;
  bool prefills_by_wgmma = false;
  bool has_plan = false;                         // the plan is of these chunks already: a later layer of the same step
  bool has_decodes = true, has_prefills = true;  // chunks of one row; of more
  int32_t num_prefill_items = 0;                 // NumPrefillItems of the chunks, or more
};

// Tiles of `rows_per_tile` rows that the chunks give the prefill kernel. `chunks` are in host memory.
int32_t NumPrefillItems(const AttentionChunk* chunks, int32_t num_chunks, int32_t rows_per_tile, bool deterministic);

// REQUIRES: q_heads / kv_heads <= kMaxGroup; keys in KeyLayout::kRows.
template <typename Device>
void PagedAttention(const PagedAttentionArgs& args, const AttentionContext& context, Device& device);

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_CUDA_H_
