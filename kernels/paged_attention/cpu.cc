#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/check.h"
#include "kernels/dtype.h"
#include "kernels/paged_attention/impl.h"
#include "kernels/paged_attention/kernels_of.h"
#include "kernels/paged_attention/paged_attention.h"
#include "kernels/paged_attention/paged_kv.h"
#include "kernels/paged_attention/tile.h"
#include "kernels/paged_attention/worker.h"

namespace quire {
namespace {

using namespace attention;  // NOLINT: this file is what that namespace is for

// Packs the queries of an item's kv_head.
void PackQueries(const PagedAttentionArgs& args, const Item& item, int32_t head, const AttentionKernels& kernels,
                 char* packed) {
  const int32_t group = args.q_heads / args.kv.kv_heads;
  const float* q = args.q.Row<float>(item.chunk->first_row + item.row_begin) +
                   int64_t{item.head_begin + head} * group * args.kv.head_dim;
  kernels.pack({0, item.num_rows, group, args.kv.head_dim, 0}, q, args.q.row_stride, packed);
}

// The Source of a cache whose elements the kernels read where they lie.
class PagedSource {
 public:
  explicit PagedSource(const PagedAttentionArgs& args) : args_(args), kv_(args.kv) {}

  int32_t key_dim() const { return kv_.head_dim; }
  int32_t value_dim() const { return kv_.head_dim; }
  int32_t value_stride() const { return kv_.head_dim; }
  int32_t tile_block_size() const { return kv_.block_size; }

  TileSlots SlotsAt(const Item& item, int32_t position) const {
    const int64_t bytes = static_cast<int64_t>(DTypeBytes(kv_.dtype));
    return FindSlots(item, position, kv_.block_size, [&](BlockId block, int32_t slot, const char*& k, const char*& v) {
      const int64_t head = kv_.HeadBegin(block, item.head_begin);
      k = static_cast<const char*>(kv_.k) + (head + slot * 2) * bytes;
      v = static_cast<const char*>(kv_.v) + (head + int64_t{slot} * kv_.head_dim) * bytes;
    });
  }

  TileSlots NextHead(TileSlots slots) const {
    const int64_t head_bytes = int64_t{kv_.block_size} * kv_.head_dim * static_cast<int64_t>(DTypeBytes(kv_.dtype));
    for (const char*& k : slots.k) k += head_bytes;
    for (const char*& v : slots.v) v += head_bytes;
    return slots;
  }

  void Pack(const Item& item, int32_t head, const AttentionKernels& kernels, char* packed) const {
    PackQueries(args_, item, head, kernels, packed);
  }

  void Enter(const TileSlots& slots, const TileSlots& next, int32_t, const AttentionKernels&, char*,
             AttentionTile& tile) const {
    tile.slots = slots;
    tile.next = next;
  }

 private:
  const PagedAttentionArgs& args_;
  const PagedKv& kv_;
};

// The Source of a quantised cache: the stage holds a tile's codes as bfloat16, K as keys [head_dim / 2][kTileSlots][2],
// V as rows [kTileSlots][head_dim] (there K stands on its way), and the scales of both.
class QuantizedSource {
 public:
  explicit QuantizedSource(const PagedAttentionArgs& args) : args_(args), kv_(args.kv) {}

  static int64_t StageBytes(int32_t head_dim) {
    return 2 * (TileBytes(head_dim) + kTileSlots * int64_t{sizeof(float)});
  }

  int32_t key_dim() const { return kv_.head_dim; }
  int32_t value_dim() const { return kv_.head_dim; }
  int32_t value_stride() const { return kv_.head_dim; }
  int32_t tile_block_size() const { return kTileSlots; }

  TileSlots SlotsAt(const Item& item, int32_t position) const {
    return FindSlots(item, position, kv_.block_size, [&](BlockId block, int32_t slot, const char*& k, const char*& v) {
      const int64_t record = kv_.RecordBegin(block, item.head_begin, slot);
      k = static_cast<const char*>(kv_.k) + record;
      v = static_cast<const char*>(kv_.v) + record;
    });
  }

  TileSlots NextHead(TileSlots slots) const {
    const int64_t head_bytes = kv_.block_size * kv_.RecordBytes();
    for (const char*& k : slots.k) k += head_bytes;
    for (const char*& v : slots.v) v += head_bytes;
    return slots;
  }

  void Pack(const Item& item, int32_t head, const AttentionKernels& kernels, char* packed) const {
    PackQueries(args_, item, head, kernels, packed);
  }

  void Enter(const TileSlots& slots, const TileSlots& next, int32_t, const AttentionKernels& kernels, char* stage,
             AttentionTile& tile) const {
    char* const rows = stage;
    char* const keys = rows + TileBytes(kv_.head_dim);
    float* const k_scales = reinterpret_cast<float*>(keys + TileBytes(kv_.head_dim));
    float* const v_scales = k_scales + kTileSlots;
    const AttentionRecords records{static_cast<int>(kv_.quantization), static_cast<int32_t>(kv_.RecordBytes()),
                                   kv_.head_dim, tile.num_slots};
    for (int32_t octet = 0; octet < kTileOctets; ++octet) {
      tile.slots.k[octet] = keys + octet * kOctet * 2 * kElementBytes;
      tile.slots.v[octet] = rows + int64_t{octet} * kOctet * kv_.head_dim * kElementBytes;
    }
    kernels.expand(records, slots.k, next.k, k_scales, rows);
    kernels.transpose(tile, keys);
    kernels.expand(records, slots.v, next.v, v_scales, rows);
    tile.next = tile.slots;  // there already
    tile.k_scales = k_scales;
    tile.v_scales = v_scales;
  }

 private:
  static constexpr int64_t kElementBytes = sizeof(BFloat16);
  static int64_t TileBytes(int32_t head_dim) { return int64_t{kTileSlots} * head_dim * kElementBytes; }

  const PagedAttentionArgs& args_;
  const PagedKv& kv_;
};

}  // namespace

size_t CpuPagedAttentionWorkspaceBytes(const WorkspaceShape& shape, int num_threads) {
  if (shape.kv_heads == 0) return 0;
  const int64_t stage_bytes = shape.quantized_cache ? QuantizedSource::StageBytes(shape.head_dim) : 0;
  const Layout layout(shape.q_heads, shape.kv_heads, shape.head_dim, shape.max_context, stage_bytes, num_threads);
  return static_cast<size_t>(layout.Bytes(num_threads));
}

void CpuPagedAttention(const PagedAttentionArgs& args, CpuIsa isa, ThreadPool& pool, absl::Span<char> workspace) {
  Check(args.kv.head_dim <= kMaxHeadDim, "head_dim above 256");
  const AttentionKernels& kernels = KernelsOf(isa)[static_cast<int>(args.kv.dtype)];
  if (args.kv.quantized()) {
    Attend(QuantizedSource(args), args, kernels, QuantizedSource::StageBytes(args.kv.head_dim), pool, workspace);
  } else {
    Attend(PagedSource(args), args, kernels, 0, pool, workspace);
  }
}

}  // namespace quire
