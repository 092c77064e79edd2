#include "kernels/paged_attention/plan.h"

#include <algorithm>
#include <cstdint>

#include "kernels/paged_attention/paged_attention.h"
#include "kernels/paged_attention/tile.h"

namespace quire::attention {
namespace {

// The cost of a tile is that of so many queries more than it has: loading K and V.
constexpr int64_t kTileCost = 8;
constexpr int64_t kItemCost = 8;

// Waking workers costs about a microsecond; below so many (queries x dims), some 4 us of work, the caller is faster
// alone.
constexpr int64_t kMinSharedCost = 12 * 16 * 64;

// A chunk that is at most this part of a worker's share is not worth dividing.
constexpr int64_t kSmallPart = 8;

// An item of so many queries may always be divided.
constexpr int32_t kDivisibleQueries = 8;

}  // namespace

int32_t MaxDivisibleQueries(int32_t group, int32_t kv_heads, int num_threads) {
  const int32_t heads =
      std::min<int32_t>(static_cast<int32_t>(CeilDiv(kv_heads, num_threads)), std::max(1, kItemQueries / group));
  return std::max(kDivisibleQueries, heads * group);
}

Plan::Plan(const PagedAttentionArgs& args, int num_threads)
    : args_(args), group_(args.q_heads / args.kv.kv_heads), num_threads_(num_threads) {
  rows_per_item_ = std::max(1, kItemQueries / group_);
  int64_t num_items = 0;
  for (int32_t c = 0; c < args.num_chunks; ++c) {
    num_items += args.kv.kv_heads * CeilDiv(args.chunks[c].num_rows, rows_per_item_);
  }
  if (num_items < 2 * num_threads) rows_per_item_ = 1;
  for (int32_t c = 0; c < args.num_chunks; ++c) cost_ += ChunkCost(args.chunks[c]);
  if (cost_ * args.kv.head_dim < kMinSharedCost) num_threads_ = 1;
}

int Plan::Owner(int64_t offset, int at_least) const {
  while (Begin(at_least + 1) <= offset) ++at_least;
  return at_least;
}

int64_t Plan::TileCost(const Item& item) const {
  return item.num_heads * (kTileCost + int64_t{item.num_rows} * group_);
}

int64_t Plan::ItemCost(const Item& item) const {
  return item.num_heads * kItemCost + (item.EndTile() - item.FirstTile()) * TileCost(item);
}

int64_t Plan::SplitOffset(const Item& item, int32_t split) const {
  if (split == item.FirstSplit() || !item.divisible) return item.offset;
  const int64_t tiles = int64_t{split} * (kSplitSlots / kTileSlots) - item.FirstTile();
  return item.offset + item.num_heads * kItemCost + tiles * TileCost(item);
}

int64_t Plan::ChunkCost(const AttentionChunk& chunk) const {
  int64_t cost = 0;
  Item item{.chunk = &chunk, .num_heads = args_.kv.kv_heads, .window = args_.window};
  for (int32_t row = 0; row < chunk.num_rows; row += item.num_rows) {
    item.row_begin = row;
    item.num_rows = std::min(rows_per_item_, chunk.num_rows - row);
    cost += ItemCost(item);
  }
  return cost;
}

// The kv_heads of a block are neighbours in memory, so together they are read in longer runs: all of them, or a
// worker's share if there are too few chunks to give every worker some.
Item Plan::FirstOfChunk(const AttentionChunk* chunk, int64_t offset) const {
  Item item{.chunk = chunk, .window = args_.window, .offset = offset};
  item.num_rows = std::min(rows_per_item_, chunk->num_rows);
  const int32_t queries = item.num_rows * group_;
  const bool small = num_threads_ == 1 || ChunkCost(*chunk) <= cost_ / (kSmallPart * num_threads_);
  const int32_t share = static_cast<int32_t>(CeilDiv(args_.kv.kv_heads, small ? 1 : num_threads_));
  item.num_heads = std::min(share, std::max(1, kItemQueries / queries));
  item.divisible = queries * item.num_heads <= MaxDivisibleQueries(group_, args_.kv.kv_heads, num_threads_);
  return item;
}

Item Plan::First() const { return args_.num_chunks > 0 ? FirstOfChunk(args_.chunks, 0) : Item{}; }

Item Plan::Next(const Item& item) const {
  Item next = item;
  next.offset += ItemCost(item);
  next.row_begin += item.num_rows;
  if (next.row_begin == item.chunk->num_rows) {
    next.row_begin = 0;
    next.head_begin += item.num_heads;
    if (next.head_begin == args_.kv.kv_heads) {
      const AttentionChunk* chunk = item.chunk + 1;
      return chunk < args_.chunks + args_.num_chunks ? FirstOfChunk(chunk, next.offset) : Item{};
    }
    next.num_heads = std::min(item.num_heads, args_.kv.kv_heads - next.head_begin);
  }
  next.num_rows = std::min(rows_per_item_, item.chunk->num_rows - next.row_begin);
  return next;
}

bool Pieces::Next(Piece& piece) {
  while (item_.num_rows > 0 && item_.offset < end_) {
    piece = {item_, item_.FirstSplit(), 0};
    const int32_t end_split = item_.EndSplit();
    while (piece.split_begin < end_split && plan_.SplitOffset(item_, piece.split_begin) < begin_) ++piece.split_begin;
    piece.split_end = piece.split_begin;
    while (piece.split_end < end_split && plan_.SplitOffset(item_, piece.split_end) < end_) ++piece.split_end;
    item_ = plan_.Next(item_);
    if (piece.split_begin < piece.split_end) return true;
  }
  return false;
}

}  // namespace quire::attention
