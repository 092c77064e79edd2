// The workers of the CPU's attention. How the work is shared among them stands in plan.h, what is done with a tile in
// tile.h, where its keys and values come from in a Source:
//
//   key_dim(), value_dim()              elements of a query and of a value
//   value_stride(), tile_block_size()   of what a tile gets to see (tile.h)
//   SlotsAt(item, position)             where the octets of a tile are, for the item's first kv_head
//   NextHead(slots)                     the same for the next one
//   Pack(item, head, kernels, packed)   packs the queries of an item's kv_head
//   Enter(slots, next, head, ...)       sets tile.slots and tile.next, having brought into `stage` what the kernels
//   cannot
//                                       read where it lies
//
// Of a divided item the worker that began it holds the merged state of its first splits; the others keep the state of
// each split (their stash); whoever is the last to finish a part merges them by rising position. A worker that has the
// item alone merges the same states in the same order.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_WORKER_H_
#define QUIRE_KERNELS_PAGED_ATTENTION_WORKER_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <numbers>

#include "absl/types/span.h"
#include "kernels/check.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/dtype.h"
#include "kernels/paged_attention/paged_attention.h"
#include "kernels/paged_attention/plan.h"
#include "kernels/paged_attention/tile.h"

namespace quire::attention {

constexpr int64_t kLineBytes = 64;

inline int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }

// Sizes in bytes of the parts of the workspace.
struct Layout {
  int32_t group;
  int32_t dim_stride;     // value_dim rounded up to 32
  int32_t item_queries;   // of the largest item
  int32_t stash_queries;  // of the largest divisible item
  int64_t max_splits;
  int64_t stage_bytes;  // what a Source keeps of a tile

  Layout(int32_t q_heads, int32_t kv_heads, int32_t value_dim, int64_t max_context, int64_t stage_bytes,
         int num_threads)
      : group(q_heads / kv_heads),
        dim_stride(static_cast<int32_t>(RoundUp(value_dim, 32))),
        item_queries(std::max(kItemQueries, group)),
        stash_queries(num_threads > 1 ? MaxDivisibleQueries(group, kv_heads, num_threads) : 0),
        max_splits(CeilDiv(max_context, kSplitSlots)),
        stage_bytes(RoundUp(stage_bytes, kLineBytes)) {}

  int64_t QueryBytes() const { return int64_t{item_queries} * kQueryBytes; }
  int64_t ScoreBytes() const { return int64_t{item_queries} * kTileSlots * 4; }
  int64_t FactorBytes() const { return 2 * RoundUp(item_queries, kMaxLanes) * 4; }
  int64_t StateBytes(int32_t queries) const {
    return (RoundUp(queries, kMaxLanes) + int64_t{queries} * (kMaxLanes + dim_stride)) * 4;
  }
  int64_t StashBytes() const { return StateBytes(stash_queries); }
  int64_t WorkerBytes() const {
    return stage_bytes + QueryBytes() + ScoreBytes() + FactorBytes() + 2 * StateBytes(item_queries) +
           max_splits * StashBytes();
  }
  // A line each for the counters, then the workers' parts.
  int64_t Bytes(int num_threads) const { return num_threads * (kLineBytes + WorkerBytes()); }
};

inline AttentionState StateAt(char* begin, int32_t queries) {
  float* max = reinterpret_cast<float*>(begin);
  float* sum = max + RoundUp(queries, kMaxLanes);
  return {max, sum, sum + int64_t{queries} * kMaxLanes};
}

// The state of the queries from `query` on.
inline AttentionState From(const AttentionState& state, int64_t query, int32_t dim_stride) {
  return {state.max + query, state.sum + query * kMaxLanes, state.acc + query * dim_stride};
}

// A worker's part of the workspace.
struct Scratch {
  Scratch(const Layout& layout, char* begin) {
    stage = begin;
    q = stage + layout.stage_bytes;
    scores = reinterpret_cast<float*>(q + layout.QueryBytes());
    factors = scores + layout.ScoreBytes() / 4;
    char* const states = reinterpret_cast<char*>(factors) + layout.FactorBytes();
    total = StateAt(states, layout.item_queries);
    part = StateAt(states + layout.StateBytes(layout.item_queries), layout.item_queries);
    stash = states + 2 * layout.StateBytes(layout.item_queries);
  }

  char* stage;
  char* q;
  float* scores;
  float* factors;
  AttentionState total;  // of an item's splits from the first on
  AttentionState part;   // of one split
  char* stash;           // states of single splits of an item that another worker began
};

template <class Source>
class Worker {
 public:
  Worker(const Source& source, const Plan& plan, const AttentionKernels& kernels, const Layout& layout, int worker,
         absl::Span<char> workspace)
      : source_(source),
        args_(plan.args()),
        plan_(plan),
        kernels_(kernels),
        layout_(layout),
        worker_(worker),
        workspace_(workspace.data()),
        scratch_(ScratchOf(worker)),
        scale_log2_(args_.scale * std::numbers::log2e_v<float>) {}

  void Run() {
    Pieces pieces(plan_, worker_);
    Piece piece, next;
    for (bool more = pieces.Next(piece); more; piece = next) {
      more = pieces.Next(next);
      Pack(piece.item);
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
  AttentionState Stash(const Scratch& scratch, int64_t split) const {
    return StateAt(scratch.stash + split * layout_.StashBytes(), layout_.stash_queries);
  }
  AttentionRows Rows(const Item& item, int32_t row_begin) const {
    return {row_begin, item.num_rows, layout_.group, source_.value_dim(), layout_.dim_stride};
  }
  // The rows that see something of [begin, end).
  AttentionRows Rows(const Item& item, int32_t begin, int32_t end) const {
    return {item.FirstRow(begin), item.EndRow(end - 1), layout_.group, source_.value_dim(), layout_.dim_stride};
  }
  // The item's kv_heads follow each other in packed queries and states.
  int64_t QueriesOfHead(const Item& item) const { return int64_t{item.num_rows} * layout_.group; }

  void Pack(const Item& item) const {
    for (int32_t head = 0; head < item.num_heads; ++head) {
      source_.Pack(item, head, kernels_, scratch_.q + head * QueriesOfHead(item) * kQueryBytes);
    }
  }

  void Compute(const Piece& piece, const Piece* next) const {
    const Item& item = piece.item;
    AttentionTile tile{};
    tile.block_size = source_.tile_block_size();
    tile.key_dim = source_.key_dim();
    tile.value_dim = source_.value_dim();
    tile.value_stride = source_.value_stride();
    tile.dim_stride = layout_.dim_stride;
    tile.group = layout_.group;
    tile.scale_log2 = scale_log2_;
    tile.cap_before = args_.softcap > 0 ? args_.scale / args_.softcap : 0;
    tile.cap_after = args_.softcap / args_.scale;
    tile.scores = scratch_.scores;
    tile.factors = scratch_.factors;
    TileSlots slots = source_.SlotsAt(item, FirstTileOf(piece) * kTileSlots);
    const int32_t last = std::min(piece.split_end * kSplitSlots, item.EndPosition());  // one behind
    for (int32_t split = piece.split_begin; split < piece.split_end; ++split) {
      const bool stashed = piece.split_begin > item.FirstSplit();
      const AttentionState state = stashed                      ? Stash(scratch_, split - piece.split_begin)
                                   : split == item.FirstSplit() ? scratch_.total
                                                                : scratch_.part;
      const int32_t begin = std::max(split * kSplitSlots, item.FirstTile() * kTileSlots);
      const int32_t end = std::min((split + 1) * kSplitSlots, last);
      if (item.window > 0) Clear(item, state);  // rows may begin with any tile
      for (int32_t position = begin; position < end; position += kTileSlots) {
        const int32_t after = position + kTileSlots;
        const TileSlots following = after < last      ? source_.SlotsAt(item, after)
                                    : next != nullptr ? source_.SlotsAt(next->item, FirstTileOf(*next) * kTileSlots)
                                                      : slots;
        tile.first = position == begin && item.window == 0;
        tile.position = position;
        tile.num_slots = std::min(kTileSlots, end - position);
        tile.row_begin = item.FirstRow(position);
        tile.row_end = item.EndRow(after - 1);
        tile.valid = std::min(kTileSlots, item.Position(tile.row_begin) - position + 1);
        tile.hidden = item.window > 0 ? item.Position(tile.row_begin) - item.window + 1 - position : -kTileSlots;
        AllHeads(tile, item, state, slots, following);
        slots = following;
      }
      if (!stashed && split > item.FirstSplit()) Merge(item, begin, end, state, scratch_.total);
    }
  }

  static int32_t FirstTileOf(const Piece& piece) {
    return std::max(piece.item.FirstTile(), piece.split_begin * (kSplitSlots / kTileSlots));
  }

  // Computes a tile for each of the item's kv_heads; `slots` are those of the first.
  void AllHeads(AttentionTile& tile, const Item& item, const AttentionState& state, TileSlots slots,
                const TileSlots& following) const {
    for (int32_t head = 0; head < item.num_heads; ++head) {
      const int64_t query = head * QueriesOfHead(item);
      const TileSlots next = head + 1 < item.num_heads ? source_.NextHead(slots) : following;
      tile.q = scratch_.q + query * kQueryBytes;
      tile.state = From(state, query, layout_.dim_stride);
      tile.slopes = args_.alibi_slopes != nullptr ? HeadsOf(args_.alibi_slopes, item, head) : nullptr;
      source_.Enter(slots, next, head, kernels_, scratch_.stage, tile);
      kernels_.tile(tile);
      slots = next;
    }
  }

  // What belongs to the q_heads of the item's kv_head.
  const float* HeadsOf(const float* heads, const Item& item, int32_t head) const {
    return heads + (item.head_begin + head) * layout_.group;
  }

  // total := total and then part, of the split's positions [begin, end).
  void Merge(const Item& item, int32_t begin, int32_t end, const AttentionState& part,
             const AttentionState& total) const {
    for (int32_t head = 0; head < item.num_heads; ++head) {
      const int64_t query = head * QueriesOfHead(item);
      kernels_.merge(Rows(item, begin, end), scale_log2_, From(part, query, layout_.dim_stride),
                     From(total, query, layout_.dim_stride));
    }
  }

  void Clear(const Item& item, const AttentionState& state) const {
    for (int32_t head = 0; head < item.num_heads; ++head) {
      kernels_.clear(Rows(item, 0), From(state, head * QueriesOfHead(item), layout_.dim_stride));
    }
  }

  // Element in a row of out.
  int64_t Col(const Item& item, int32_t head) const {
    return int64_t{item.head_begin + head} * layout_.group * source_.value_dim();
  }

  void Finish(const Item& item, const AttentionState& total) const {
    const Tensor& out = args_.out;
    const int64_t bytes = static_cast<int64_t>(DTypeBytes(out.dtype));
    char* row = out.Row<char>(0) + (item.chunk->first_row + item.row_begin) * out.row_stride * bytes;
    for (int32_t head = 0; head < item.num_heads; ++head) {
      const AttentionState of_head = From(total, head * QueriesOfHead(item), layout_.dim_stride);
      if (args_.sinks != nullptr) {
        kernels_.sink(Rows(item, 0), scale_log2_, HeadsOf(args_.sinks, item, head), of_head);
      }
      kernels_.finish(Rows(item, 0), of_head, static_cast<int>(out.dtype), row + Col(item, head) * bytes,
                      out.row_stride * bytes);
    }
  }

  // Counts the piece's splits as done; if they were the last of the item, merges and finishes it.
  void FinishDivided(const Piece& piece) const {
    const Item& item = piece.item;
    int owner = plan_.Owner(item.offset, 0);
    const int first_owner = owner;
    // Only one item that begins with a worker does not end with it, so one counter for each worker is enough.
    auto& counter = *reinterpret_cast<std::atomic<int32_t>*>(workspace_ + first_owner * kLineBytes);
    const int32_t done = piece.split_end - piece.split_begin;
    if (counter.fetch_add(done, std::memory_order_acq_rel) + done < item.EndSplit() - item.FirstSplit()) return;
    const AttentionState total = ScratchOf(first_owner).total;
    int32_t owner_begin = item.FirstSplit();  // the owner's first split
    for (int32_t split = item.FirstSplit(); split < item.EndSplit(); ++split) {
      const int next_owner = plan_.Owner(plan_.SplitOffset(item, split), owner);
      if (next_owner != owner) owner_begin = split;
      owner = next_owner;
      if (owner == first_owner) continue;  // merged in `total` already
      const int32_t begin = split * kSplitSlots;
      Merge(item, begin, std::min(begin + kSplitSlots, item.EndPosition()),
            Stash(ScratchOf(owner), split - owner_begin), total);
    }
    Finish(item, total);
  }

  const Source& source_;
  const PagedAttentionArgs& args_;
  const Plan& plan_;
  const AttentionKernels& kernels_;
  const Layout& layout_;
  int worker_;
  char* workspace_;
  Scratch scratch_;
  float scale_log2_;
};

inline int64_t LongestContext(const PagedAttentionArgs& args) {
  int64_t longest = 0;
  for (int32_t c = 0; c < args.num_chunks; ++c) {
    longest = std::max(longest, int64_t{args.chunks[c].first_position} + args.chunks[c].num_rows);
  }
  return longest;
}

// Attends with all workers that the plan of `args` wants.
template <class Source>
void Attend(const Source& source, const PagedAttentionArgs& args, const AttentionKernels& kernels, int64_t stage_bytes,
            ThreadPool& pool, absl::Span<char> workspace) {
  const Plan plan(args, pool.num_threads());
  const Layout layout(args.q_heads, args.kv.kv_heads, source.value_dim(), LongestContext(args), stage_bytes,
                      plan.num_threads());
  Check(layout.Bytes(plan.num_threads()) <= static_cast<int64_t>(workspace.size()), "attention beyond its workspace");
  if (plan.num_threads() == 1) {
    Worker<Source>(source, plan, kernels, layout, 0, workspace).Run();
    return;
  }
  for (int i = 0; i < plan.num_threads(); ++i) new (workspace.data() + i * kLineBytes) std::atomic<int32_t>(0);
  pool.Run([&](int worker) { Worker<Source>(source, plan, kernels, layout, worker, workspace).Run(); });
}

// Where the octets of the tile at `position` are in a block table, as far as the item's last row sees: calls
// place(block, slot, k, v) for each. Those that lie before all windows, whose blocks may be gone, stand where the first
// of the others is; those behind the last stand where that one is.
template <class Place>
TileSlots FindSlots(const Item& item, int32_t position, int32_t block_size, const Place& place) {
  const int32_t num_slots = std::min(kTileSlots, item.EndPosition() - position);
  const int32_t first = std::max(0, item.FirstPosition() - position) / kOctet;
  TileSlots slots;
  int32_t octet = first;
  int32_t entry = (position + octet * kOctet) / block_size;
  for (int32_t slot = (position + octet * kOctet) % block_size; octet * kOctet < num_slots; slot = 0, ++entry) {
    const BlockId block = item.chunk->block_table[entry];
    for (; slot < block_size && octet * kOctet < num_slots; slot += kOctet, ++octet) {
      place(block, slot, slots.k[octet], slots.v[octet]);
    }
  }
  for (; octet < kTileOctets; ++octet) {
    slots.k[octet] = slots.k[octet - 1];
    slots.v[octet] = slots.v[octet - 1];
  }
  for (octet = 0; octet < first; ++octet) {
    slots.k[octet] = slots.k[first];
    slots.v[octet] = slots.v[first];
  }
  return slots;
}

}  // namespace quire::attention

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_WORKER_H_
