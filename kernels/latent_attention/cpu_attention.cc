// LatentAttention on the CPU: the tiles of paged attention, with all heads as the queries of one cached vector per
// slot.
//
// A slot's row serves as key and as value. As a value it is read where it lies; as keys a tile is transposed once for
// all queries of an item. Heads are taken in groups of at most kItemQueries, so that sums stay in L2.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/dtype.h"
#include "kernels/latent_attention/impl.h"
#include "kernels/paged_attention/kernels_of.h"
#include "kernels/paged_attention/plan.h"
#include "kernels/paged_attention/tile.h"
#include "kernels/paged_attention/worker.h"

namespace quire {
namespace {

using namespace attention;  // NOLINT: this file is what that namespace is for

static_assert(kMaxLatentDim + kMaxLatentRopeDim <= kMaxKeyDim);

// Heads of a group: the most that divide their number.
int32_t GroupOf(int32_t num_heads) {
  int32_t group = std::min(num_heads, kItemQueries);
  while (num_heads % group != 0) --group;
  return group;
}

int64_t StageBytes(int32_t key_dim, int64_t element_bytes) { return int64_t{key_dim} * kTileSlots * element_bytes; }

class LatentSource {
 public:
  LatentSource(const LatentAttentionArgs& args, int32_t group)
      : args_(args), kv_(args.kv), group_(group), bytes_(static_cast<int64_t>(DTypeBytes(args.kv.dtype))) {}

  int32_t key_dim() const { return kv_.dim(); }
  int32_t value_dim() const { return kv_.latent_dim; }
  int32_t value_stride() const { return kv_.dim(); }
  int32_t tile_block_size() const { return kTileSlots; }

  // Rows only: keys are in the stage.
  TileSlots SlotsAt(const Item& item, int32_t position) const {
    return FindSlots(item, position, kv_.block_size, [&](BlockId block, int32_t slot, const char*& k, const char*& v) {
      k = v = static_cast<const char*>(kv_.data) + kv_.Index(block, slot, 0) * bytes_;
    });
  }
  TileSlots NextHead(const TileSlots& slots) const { return slots; }

  // The latent parts of the group's heads, then, in each, the part with position.
  void Pack(const Item& item, int32_t head, const AttentionKernels& kernels, char* packed) const {
    const int64_t first_head = int64_t{item.head_begin + head} * group_;
    float query[kMaxKeyDim];
    for (int32_t row = 0; row < item.num_rows; ++row) {
      const int64_t at = item.chunk->first_row + item.row_begin + row;
      for (int64_t h = first_head; h < first_head + group_; ++h, packed += kQueryBytes) {
        std::copy_n(args_.q_latent.Row<float>(at) + h * kv_.latent_dim, kv_.latent_dim, query);
        std::copy_n(args_.q_rope.q.Row<float>(at) + h * args_.q_rope.head_stride, kv_.rope_dim, query + kv_.latent_dim);
        kernels.pack({0, 1, 1, kv_.dim(), 0}, query, 0, packed);
      }
    }
  }

  void Enter(const TileSlots& slots, const TileSlots& next, int32_t head, const AttentionKernels& kernels, char* stage,
             AttentionTile& tile) const {
    tile.slots = slots;
    tile.next = next;
    if (head == 0) kernels.transpose(tile, stage);
    for (int32_t octet = 0; octet < kTileOctets; ++octet) {
      tile.slots.k[octet] = tile.next.k[octet] = stage + octet * kOctet * 2 * bytes_;
    }
  }

 private:
  const LatentAttentionArgs& args_;
  const LatentKv& kv_;
  int32_t group_;
  int64_t bytes_;
};

}  // namespace

size_t CpuLatentAttentionWorkspaceBytes(const WorkspaceShape& shape, int num_threads) {
  if (shape.latent_heads == 0) return 0;
  const Layout layout(kItemQueries, 1, shape.latent_dim, shape.max_context,
                      StageBytes(shape.latent_dim + shape.latent_rope_dim, 4), num_threads);
  return static_cast<size_t>(layout.Bytes(num_threads));
}

void CpuLatentAttention(const LatentAttentionArgs& args, CpuIsa isa, ThreadPool& pool, absl::Span<char> workspace) {
  const int32_t group = GroupOf(args.num_heads);
  // What plan and workers ask of a call; they see the cache through the source alone.
  PagedAttentionArgs call = {.q = args.q_latent,
                             .chunks = args.chunks,
                             .num_chunks = args.num_chunks,
                             .q_heads = args.num_heads,
                             .scale = args.scale,
                             .kv = {},
                             .out = args.out};
  call.kv.kv_heads = args.num_heads / group;
  call.kv.head_dim = args.kv.dim();
  Attend(LatentSource(args, group), call, KernelsOf(isa)[static_cast<int>(args.kv.dtype)],
         StageBytes(args.kv.dim(), static_cast<int64_t>(DTypeBytes(args.kv.dtype))), pool, workspace);
}

}  // namespace quire
