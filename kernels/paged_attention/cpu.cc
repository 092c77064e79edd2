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

// The Source of a cache whose elements the kernels read where they lie.
class PagedSource {
 public:
  explicit PagedSource(const PagedAttentionArgs& args)
      : args_(args), kv_(args.kv), group_(args.q_heads / args.kv.kv_heads) {}

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
    const float* q = args_.q.Row<float>(item.chunk->first_row + item.row_begin) +
                     int64_t{item.head_begin + head} * group_ * kv_.head_dim;
    kernels.pack({0, item.num_rows, group_, kv_.head_dim, 0}, q, args_.q.row_stride, packed);
  }

  void Enter(const TileSlots& slots, const TileSlots& next, int32_t, const AttentionKernels&, char*,
             AttentionTile& tile) const {
    tile.slots = slots;
    tile.next = next;
  }

 private:
  const PagedAttentionArgs& args_;
  const PagedKv& kv_;
  int32_t group_;
};

}  // namespace

size_t CpuPagedAttentionWorkspaceBytes(const WorkspaceShape& shape, int num_threads) {
  if (shape.kv_heads == 0) return 0;
  const Layout layout(shape.q_heads, shape.kv_heads, shape.head_dim, shape.max_context, 0, num_threads);
  return static_cast<size_t>(layout.Bytes(num_threads));
}

void CpuPagedAttention(const PagedAttentionArgs& args, CpuIsa isa, ThreadPool& pool, absl::Span<char> workspace) {
  Check(args.kv.head_dim <= kMaxHeadDim, "head_dim above 256");
  Attend(PagedSource(args), args, KernelsOf(isa)[static_cast<int>(args.kv.dtype)], 0, pool, workspace);
}

}  // namespace quire
