// How the work of a PagedAttention call is cut and shared among the workers of the CPU.
//
// An item is some consecutive rows of one chunk and some neighbouring kv_heads; it takes the splits of kSplitSlots that
// its rows see. All splits of all items stand in one line, measured by their estimated cost, and every worker takes an
// equal length of it. So a worker computes whole items, except that its first may have been begun by another worker,
// and its last may be continued by another. Only items of few queries are divided so: what is computed of them apart
// must be kept until it is merged.
//
// Nothing here has an influence on a row's bits. Values; no memory of their own.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_PLAN_H_
#define QUIRE_KERNELS_PAGED_ATTENTION_PLAN_H_

#include <cstdint>

#include "kernels/paged_attention/paged_attention.h"
#include "kernels/paged_attention/tile.h"

namespace quire::attention {

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Queries of an item with several rows or kv_heads: enough to reuse a tile of K and V (16 KB at head_dim 64) for
// several rows while it is in L1, few enough that their scores and sums (512 bytes each) stay there too.
inline constexpr int32_t kItemQueries = 32;

// Queries that an item may have to be divisible, for a given number of workers.
int32_t MaxDivisibleQueries(int32_t group, int32_t kv_heads, int num_threads);

struct Item {
  const AttentionChunk* chunk = nullptr;
  int32_t head_begin = 0;  // kv_heads
  int32_t num_heads = 0;
  int32_t row_begin = 0;  // in the chunk
  int32_t num_rows = 0;
  int32_t window = 0;
  bool divisible = false;
  int64_t offset = 0;  // in the line of all work

  // Of a row of the item.
  int32_t Position(int32_t row) const { return chunk->first_position + row_begin + row; }
  // What the rows see, together, is [FirstPosition(), EndPosition()).
  int32_t FirstPosition() const { return FirstVisible(Position(0), window); }
  int32_t EndPosition() const { return Position(num_rows); }
  int32_t FirstTile() const { return FirstPosition() / kTileSlots; }
  int32_t EndTile() const { return static_cast<int32_t>(CeilDiv(EndPosition(), kTileSlots)); }
  int32_t FirstSplit() const { return FirstPosition() / kSplitSlots; }
  int32_t EndSplit() const { return static_cast<int32_t>(CeilDiv(EndPosition(), kSplitSlots)); }
  // The first row that sees `position`, or one before it, and the one behind the last that sees `position` or one
  // behind it.
  int32_t FirstRow(int32_t position) const { return position > Position(0) ? position - Position(0) : 0; }
  int32_t EndRow(int32_t position) const {
    if (window == 0) return num_rows;
    const int64_t end = int64_t{position} + window - Position(0);
    return end < num_rows ? static_cast<int32_t>(end) : num_rows;
  }
};

// Splits [split_begin, split_end) of an item: what one worker computes of it.
struct Piece {
  Item item;
  int32_t split_begin = 0;
  int32_t split_end = 0;

  bool Whole() const { return split_begin == item.FirstSplit() && split_end == item.EndSplit(); }
};

class Plan {
 public:
  // Uses fewer threads if waking them costs more than they help.
  Plan(const PagedAttentionArgs& args, int num_threads);

  const PagedAttentionArgs& args() const { return args_; }
  int num_threads() const { return num_threads_; }

  // Where the length of a worker begins; that of worker num_threads() is the end.
  int64_t Begin(int worker) const { return cost_ * worker / num_threads_; }

  // The worker, from `at_least` on, whose length contains `offset`.
  int Owner(int64_t offset, int at_least) const;

  // Where a split begins. An item that is not divisible is all where it begins.
  int64_t SplitOffset(const Item& item, int32_t split) const;

  // Items in the order of the line: by chunk, kv_heads, rows. num_rows is 0 behind the last.
  Item First() const;
  Item Next(const Item& item) const;

 private:
  Item FirstOfChunk(const AttentionChunk* chunk, int64_t offset) const;
  int64_t ChunkCost(const AttentionChunk& chunk) const;
  int64_t ItemCost(const Item& item) const;
  int64_t TileCost(const Item& item) const;

  const PagedAttentionArgs& args_;
  int32_t group_;
  int32_t rows_per_item_ = 1;
  int64_t cost_ = 0;
  int num_threads_;
};

// The pieces of one worker, in the order of the line.
class Pieces {
 public:
  Pieces(const Plan& plan, int worker)
      : plan_(plan), begin_(plan.Begin(worker)), end_(plan.Begin(worker + 1)), item_(plan.First()) {}

  // False at the end.
  bool Next(Piece& piece);

 private:
  const Plan& plan_;
  int64_t begin_;
  int64_t end_;
  Item item_;
};

}  // namespace quire::attention

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_PLAN_H_
