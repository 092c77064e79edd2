// PagedAttention on the CPU: cuts the work into items and splits, and shares them among the workers.
//
// An item is some consecutive rows of one chunk and one kv_head; it takes ceil(positions / kSplitSlots) splits. All
// splits of all items stand in one line, measured by their estimated cost, and every worker takes an equal length of
// it. So a worker computes whole items, except that its first item may have begun, and its last may end, with another
// worker. Such an item must have few queries: the worker that began it holds the merged state of its first splits, the
// others keep the state of each split (their stash), and whoever is the last to finish a part merges them all by rising
// position. One worker alone merges the same states in the same order.

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <numbers>

#include "absl/types/span.h"
#include "kernels/check.h"
#include "kernels/dtype.h"
#include "kernels/paged_attention/impl.h"
#include "kernels/paged_attention/paged_attention.h"
#include "kernels/paged_attention/paged_kv.h"
#include "kernels/paged_attention/tile.h"

namespace quire {
namespace {

using attention::AttentionKernels;
using attention::AttentionRows;
using attention::AttentionState;
using attention::AttentionTile;
using attention::kMaxLanes;
using attention::kOctet;
using attention::kQueryBytes;
using attention::kSplitSlots;
using attention::kTileOctets;
using attention::kTileSlots;
using attention::TileSlots;

constexpr int64_t kLineBytes = 64;

// Queries of an item: enough to reuse a tile of K and V (64 slots, 16 KB at head_dim 64) while it is in L1, few enough
// that their scores and sums (512 bytes each) stay there too.
constexpr int32_t kItemQueries = 32;

// An item of at most so many queries, or of one row, may be divided among workers.
constexpr int32_t kStashQueries = 8;

// The cost of a tile is that of so many queries more than it has: loading K and V.
constexpr int64_t kTileCost = 8;
constexpr int64_t kItemCost = 8;

// Waking workers costs about a microsecond; below so many (queries x dims), some 4 us of work, the caller is faster
// alone.
constexpr int64_t kMinSharedCost = 12 * 16 * 64;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }

const AttentionKernels* KernelsOf(CpuIsa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case CpuIsa::kAvx512Bf16:
      return attention::Avx512Bf16Attention();
    case CpuIsa::kAvx512:
      return attention::Avx512Attention();
    case CpuIsa::kAvx2:
      return attention::Avx2Attention();
#endif
    default:
      return attention::PortableAttention();
  }
}

// Sizes in bytes of a worker's parts of the workspace.
struct Layout {
  int32_t group = 0;
  int32_t head_dim = 0;
  int32_t dim_stride = 0;    // head_dim rounded up to 32
  int32_t item_queries = 0;  // of the largest item
  int32_t stash_queries = 0;
  int64_t max_splits = 0;

  Layout(int32_t q_heads, int32_t kv_heads, int32_t head_dim, int64_t max_context)
      : group(q_heads / kv_heads),
        head_dim(head_dim),
        dim_stride(static_cast<int32_t>(RoundUp(head_dim, 32))),
        item_queries(std::max(kItemQueries, group)),
        stash_queries(std::max(kStashQueries, group)),
        max_splits(CeilDiv(max_context, kSplitSlots)) {}

  int64_t QueryBytes() const { return int64_t{item_queries} * kQueryBytes; }
  int64_t ScoreBytes() const { return int64_t{item_queries} * kTileSlots * 4; }
  int64_t FactorBytes() const { return 2 * RoundUp(item_queries, kMaxLanes) * 4; }
  int64_t StateBytes(int32_t queries) const {
    return (RoundUp(queries, kMaxLanes) + int64_t{queries} * (kMaxLanes + dim_stride)) * 4;
  }
  int64_t WorkerBytes() const {
    return QueryBytes() + ScoreBytes() + FactorBytes() + 2 * StateBytes(item_queries) +
           max_splits * StateBytes(stash_queries);
  }
  // One line each for the counters, then the workers' parts.
  int64_t Bytes(int num_threads) const { return num_threads * (kLineBytes + WorkerBytes()); }
};

// A worker's part of the workspace.
struct Scratch {
  Scratch(const Layout& layout, char* begin) : layout(layout) {
    q = begin;
    scores = reinterpret_cast<float*>(q + layout.QueryBytes());
    factors = scores + layout.ScoreBytes() / 4;
    char* states = reinterpret_cast<char*>(factors) + layout.FactorBytes();
    total = StateAt(states, layout.item_queries);
    part = StateAt(states + layout.StateBytes(layout.item_queries), layout.item_queries);
    stash = states + 2 * layout.StateBytes(layout.item_queries);
  }

  AttentionState Stash(int64_t i) const {
    return StateAt(stash + i * layout.StateBytes(layout.stash_queries), layout.stash_queries);
  }

  AttentionState StateAt(char* begin, int32_t queries) const {
    float* max = reinterpret_cast<float*>(begin);
    float* sum = max + RoundUp(queries, kMaxLanes);
    return {max, sum, sum + int64_t{queries} * kMaxLanes};
  }

  const Layout& layout;
  char* q;
  float* scores;
  float* factors;
  AttentionState total;
  AttentionState part;
  char* stash;  // states of single splits, from the first that this worker computed of an item that another one began
};

// Some rows of a chunk and one kv_head.
struct Item {
  const AttentionChunk* chunk = nullptr;
  int32_t kv_head = 0;
  int32_t row_begin = 0;  // in the chunk
  int32_t num_rows = 0;
  int64_t offset = 0;  // in the line of all work

  int32_t Position(int32_t row) const { return chunk->first_position + row_begin + row; }
  int32_t NumPositions() const { return Position(num_rows); }
  int32_t NumSplits() const { return static_cast<int32_t>(CeilDiv(NumPositions(), kSplitSlots)); }
};

// Splits [split_begin, split_end) of an item: what one worker computes of it.
struct Piece {
  Item item;
  int32_t split_begin = 0;
  int32_t split_end = 0;

  bool Whole() const { return split_begin == 0 && split_end == item.NumSplits(); }
};

// The line of all work, and where the workers' lengths of it begin.
class Plan {
 public:
  Plan(const PagedAttentionArgs& args, int num_threads) : args_(args), group_(args.q_heads / args.kv.kv_heads) {
    rows_per_item_ = std::max(1, kItemQueries / group_);
    int64_t num_items = 0;
    for (int32_t c = 0; c < args.num_chunks; ++c)
      num_items += args.kv.kv_heads * CeilDiv(args.chunks[c].num_rows, rows_per_item_);
    if (num_items < 2 * num_threads) rows_per_item_ = 1;
    for (int32_t c = 0; c < args.num_chunks; ++c) cost_ += ChunkCost(args.chunks[c]);
    num_threads_ = cost_ * args.kv.head_dim < kMinSharedCost ? 1 : num_threads;
  }

  int num_threads() const { return num_threads_; }
  int64_t Begin(int worker) const { return cost_ * worker / num_threads_; }

  // The worker, from `at_least` on, whose length contains `offset`.
  int Owner(int64_t offset, int at_least) const {
    while (Begin(at_least + 1) <= offset) ++at_least;
    return at_least;
  }

  bool Divisible(const Item& item) const { return item.num_rows == 1 || item.num_rows * group_ <= kStashQueries; }

  int64_t ItemCost(const Item& item) const {
    return kItemCost + CeilDiv(item.NumPositions(), kTileSlots) * TileCost(item);
  }

  // Where a split begins. An item that is not divisible is all where it begins.
  int64_t SplitOffset(const Item& item, int32_t split) const {
    if (split == 0 || !Divisible(item)) return item.offset;
    return item.offset + kItemCost + int64_t{split} * (kSplitSlots / kTileSlots) * TileCost(item);
  }

  int64_t ChunkCost(const AttentionChunk& chunk) const {
    int64_t cost = 0;
    for (Item item = FirstItem(chunk); item.num_rows > 0; Advance(item)) cost += ItemCost(item);
    return cost * args_.kv.kv_heads;
  }

  Item FirstItem(const AttentionChunk& chunk) const {
    return {&chunk, 0, 0, std::min(rows_per_item_, chunk.num_rows), 0};
  }

  // To the next rows of the chunk, none at its end.
  void Advance(Item& item) const {
    item.offset += ItemCost(item);
    item.row_begin += item.num_rows;
    item.num_rows = std::min(rows_per_item_, item.chunk->num_rows - item.row_begin);
  }

 private:
  int64_t TileCost(const Item& item) const { return kTileCost + int64_t{item.num_rows} * group_; }

  const PagedAttentionArgs& args_;
  int32_t group_;
  int32_t rows_per_item_ = 1;
  int64_t cost_ = 0;
  int num_threads_ = 1;
};

// The pieces of one worker, in the order of the line: by chunk, kv_head, rows.
class Pieces {
 public:
  Pieces(const PagedAttentionArgs& args, const Plan& plan, int worker)
      : args_(args), plan_(plan), begin_(plan.Begin(worker)), end_(plan.Begin(worker + 1)) {
    if (args.num_chunks > 0) item_ = plan.FirstItem(args.chunks[0]);
  }

  // False at the end.
  bool Next(Piece& piece) {
    while (item_.num_rows > 0 && item_.offset < end_) {
      const Item item = item_;
      Step();
      piece = {item, 0, 0};
      const int32_t num_splits = item.NumSplits();
      while (piece.split_begin < num_splits && plan_.SplitOffset(item, piece.split_begin) < begin_) ++piece.split_begin;
      piece.split_end = piece.split_begin;
      while (piece.split_end < num_splits && plan_.SplitOffset(item, piece.split_end) < end_) ++piece.split_end;
      if (piece.split_begin < piece.split_end) return true;
    }
    return false;
  }

 private:
  void Step() {
    plan_.Advance(item_);
    while (item_.num_rows == 0) {
      const int64_t offset = item_.offset;
      int32_t kv_head = item_.kv_head + 1;
      if (kv_head == args_.kv.kv_heads) {
        kv_head = 0;
        if (++chunk_ == args_.num_chunks) return;
      }
      item_ = plan_.FirstItem(args_.chunks[chunk_]);
      item_.kv_head = kv_head;
      item_.offset = offset;
    }
  }

  const PagedAttentionArgs& args_;
  const Plan& plan_;
  int64_t begin_;
  int64_t end_;
  int32_t chunk_ = 0;
  Item item_;
};

class Worker {
 public:
  Worker(const PagedAttentionArgs& args, const AttentionKernels& kernels, const Layout& layout, const Plan& plan,
         int worker, absl::Span<char> workspace)
      : args_(args),
        kernels_(kernels),
        layout_(layout),
        plan_(plan),
        worker_(worker),
        workspace_(workspace.data()),
        scratch_(ScratchOf(worker)),
        scale_log2_(args.scale * std::numbers::log2e_v<float>) {}

  void Run() {
    Pieces pieces(args_, plan_, worker_);
    Piece piece, next;
    for (bool more = pieces.Next(piece); more; piece = next) {
      more = pieces.Next(next);
      Compute(piece, more ? &next : nullptr);
      if (piece.Whole()) {
        Finish(piece.item, scratch_.total);
      } else {
        FinishDivided(piece);
      }
    }
  }

 private:
  Scratch ScratchOf(int worker) const {
    return Scratch(layout_, workspace_ + plan_.num_threads() * kLineBytes + worker * layout_.WorkerBytes());
  }

  AttentionRows Rows(const Item& item, int32_t row_begin) const {
    return {row_begin, item.num_rows, layout_.group, layout_.head_dim, layout_.dim_stride};
  }

  // The first row of the item that sees `position`.
  static int32_t FirstRow(const Item& item, int32_t position) { return std::max(0, position - item.Position(0)); }

  void Compute(const Piece& piece, const Piece* next) {
    const Item& item = piece.item;
    const float* q = args_.q.Row<float>(item.chunk->first_row + item.row_begin) +
                     int64_t{item.kv_head} * layout_.group * layout_.head_dim;
    kernels_.pack(Rows(item, 0), q, args_.q.row_stride, scratch_.q);
    AttentionTile tile{};
    tile.block_size = args_.kv.block_size;
    tile.head_dim = layout_.head_dim;
    tile.dim_stride = layout_.dim_stride;
    tile.group = layout_.group;
    tile.row_end = item.num_rows;
    tile.scale_log2 = scale_log2_;
    tile.q = scratch_.q;
    tile.scores = scratch_.scores;
    tile.factors = scratch_.factors;
    tile.slots = SlotsAt(item, piece.split_begin * kSplitSlots);
    for (int32_t split = piece.split_begin; split < piece.split_end; ++split) {
      const bool stashed = piece.split_begin > 0;
      tile.state = stashed ? scratch_.Stash(split - piece.split_begin) : split == 0 ? scratch_.total : scratch_.part;
      const int32_t begin = split * kSplitSlots;
      const int32_t end = std::min(begin + kSplitSlots, item.NumPositions());
      for (int32_t position = begin; position < end; position += kTileSlots) {
        const int32_t after = position + kTileSlots;
        tile.next = after < item.NumPositions() && (after < end || split + 1 < piece.split_end) ? SlotsAt(item, after)
                    : next != nullptr ? SlotsAt(next->item, next->split_begin * kSplitSlots)
                                      : tile.slots;
        tile.first = position == begin;
        tile.num_slots = std::min(kTileSlots, end - position);
        tile.row_begin = FirstRow(item, position);
        tile.valid = std::min(kTileSlots, item.Position(tile.row_begin) - position + 1);
        kernels_.tile(tile);
        tile.slots = tile.next;
      }
      if (!stashed && split > 0)
        kernels_.merge(Rows(item, FirstRow(item, begin)), scale_log2_, scratch_.part, scratch_.total);
    }
  }

  // Where the octets of the tile at `position` are, as far as the item's last row sees.
  TileSlots SlotsAt(const Item& item, int32_t position) const {
    const PagedKv& kv = args_.kv;
    const int64_t bytes = static_cast<int64_t>(DTypeBytes(kv.dtype));
    const char* k = static_cast<const char*>(kv.k);
    const char* v = static_cast<const char*>(kv.v);
    const int32_t num_octets =
        static_cast<int32_t>(CeilDiv(std::min(kTileSlots, item.NumPositions() - position), kOctet));
    TileSlots slots;
    int32_t entry = position / kv.block_size;
    int32_t slot = position % kv.block_size;
    for (int32_t octet = 0; octet < num_octets; ++octet) {
      const int64_t head = kv.HeadBegin(item.chunk->block_table[entry], item.kv_head);
      slots.k[octet] = k + (head + slot * 2) * bytes;
      slots.v[octet] = v + (head + int64_t{slot} * kv.head_dim) * bytes;
      slot += kOctet;
      if (slot == kv.block_size) {
        slot = 0;
        ++entry;
      }
    }
    for (int32_t octet = num_octets; octet < kTileOctets; ++octet) {
      slots.k[octet] = slots.k[num_octets - 1];
      slots.v[octet] = slots.v[num_octets - 1];
    }
    return slots;
  }

  void Finish(const Item& item, const AttentionState& total) const {
    const Tensor& out = args_.out;
    const int64_t bytes = static_cast<int64_t>(DTypeBytes(out.dtype));
    const int64_t col = int64_t{item.kv_head} * layout_.group * layout_.head_dim;
    char* to = out.Row<char>(0) + ((item.chunk->first_row + item.row_begin) * out.row_stride + col) * bytes;
    kernels_.finish(Rows(item, 0), total, static_cast<int>(out.dtype), to, out.row_stride * bytes);
  }

  // Counts the piece's splits as done; if they were the last of the item, merges and finishes it.
  void FinishDivided(const Piece& piece) const {
    const Item& item = piece.item;
    int owner = plan_.Owner(item.offset, 0);
    const int first_owner = owner;
    // Only one item that begins with a worker does not end with it, so one counter for each worker is enough.
    auto& counter = *reinterpret_cast<std::atomic<int32_t>*>(workspace_ + first_owner * kLineBytes);
    const int32_t done = piece.split_end - piece.split_begin;
    if (counter.fetch_add(done, std::memory_order_acq_rel) + done < item.NumSplits()) return;
    const AttentionState total = ScratchOf(first_owner).total;
    int32_t owner_begin = 0;  // the owner's first split
    for (int32_t split = 0; split < item.NumSplits(); ++split) {
      const int next_owner = plan_.Owner(plan_.SplitOffset(item, split), owner);
      if (next_owner != owner) {
        owner = next_owner;
        owner_begin = split;
      }
      if (owner == first_owner) continue;  // merged in `total` already
      kernels_.merge(Rows(item, FirstRow(item, split * kSplitSlots)), scale_log2_,
                     ScratchOf(owner).Stash(split - owner_begin), total);
    }
    Finish(item, total);
  }

  const PagedAttentionArgs& args_;
  const AttentionKernels& kernels_;
  const Layout& layout_;
  const Plan& plan_;
  int worker_;
  char* workspace_;
  Scratch scratch_;
  float scale_log2_;
};

int64_t LongestContext(const PagedAttentionArgs& args) {
  int64_t longest = 0;
  for (int32_t c = 0; c < args.num_chunks; ++c) {
    longest = std::max(longest, int64_t{args.chunks[c].first_position} + args.chunks[c].num_rows);
  }
  return longest;
}

}  // namespace

size_t CpuPagedAttentionWorkspaceBytes(const WorkspaceShape& shape, int num_threads) {
  return static_cast<size_t>(
      Layout(shape.q_heads, shape.kv_heads, shape.head_dim, shape.max_context).Bytes(num_threads));
}

void CpuPagedAttention(const PagedAttentionArgs& args, CpuIsa isa, ThreadPool& pool, absl::Span<char> workspace) {
  const Layout layout(args.q_heads, args.kv.kv_heads, args.kv.head_dim, LongestContext(args));
  const Plan plan(args, pool.num_threads());
  Check(args.kv.head_dim <= attention::kMaxHeadDim, "head_dim above 256");
  Check(layout.Bytes(plan.num_threads()) <= static_cast<int64_t>(workspace.size()), "attention beyond its workspace");
  const AttentionKernels& kernels = KernelsOf(isa)[static_cast<int>(args.kv.dtype)];
  if (plan.num_threads() == 1) {
    Worker(args, kernels, layout, plan, 0, workspace).Run();
    return;
  }
  for (int i = 0; i < plan.num_threads(); ++i) new (workspace.data() + i * kLineBytes) std::atomic<int32_t>(0);
  pool.Run([&](int worker) { Worker(args, kernels, layout, plan, worker, workspace).Run(); });
}

}  // namespace quire
