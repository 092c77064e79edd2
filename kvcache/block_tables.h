// BlockTables: the block tables of one sequence, one for each group of layers, all of the same length.
//
// Owns its blocks. Thread: the engine thread. Owned by its Sequence. It knows neither tokens nor why it grows.

#ifndef QUIRE_KVCACHE_BLOCK_TABLES_H_
#define QUIRE_KVCACHE_BLOCK_TABLES_H_

#include <cstdint>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/functional/function_ref.h"
#include "kernels/copy_blocks/copy_blocks.h"
#include "kvcache/block_hash.h"
#include "kvcache/block_pool.h"
#include "kvcache/block_table.h"
#include "kvcache/kv_table_layout.h"

namespace quire {

class BlockTables {
 public:
  // `layout` and `pool` outlive it.
  BlockTables(const KvTableLayout& layout, BlockPool& pool);
  ~BlockTables() { Clear(); }

  BlockTables(const BlockTables&) = delete;
  BlockTables& operator=(const BlockTables&) = delete;

  const BlockTable& operator[](int32_t group) const { return tables_[group]; }
  int32_t num_groups() const { return static_cast<int32_t>(tables_.size()); }
  // Indices of each table, and the positions that they stand for.
  int32_t size() const { return tables_[0].size(); }
  int32_t num_slots() const { return num_slots_; }
  // Blocks that are missing, over all groups, for a sequence of `num_tokens` tokens that runs one in each step.
  int64_t NumMissing(int64_t num_tokens) const {
    // A decode step asks this of every sequence: mostly there is one group without a window, and it lacks a block.
    const int64_t num_beyond = num_tokens - num_slots_;
    if (num_beyond > layout_->block_size || layout_->windows.size() > 1 || layout_->windows[0] > 0) {
      return NumMissingInGroups(num_tokens);
    }
    return num_beyond > 0 ? 1 : 0;
  }

  // Room for `num_indices` indices: until then nothing below allocates memory.
  void Reserve(int64_t num_indices);

  // One more index: a new block in each group. REQUIRES: num_groups() blocks are available (Check).
  void AppendNew();

  // Takes over what `other` holds, every block shared by both. REQUIRES: this one is empty.
  void ShareAll(const BlockTables& other);

  // Copy-on-write (Kwon 2023, section 4.4). How many blocks at `index` somebody else holds too, and what makes them
  // this table's own: a new block in the place of each, appended to `copies`, which must be carried out before anybody
  // writes. REQUIRES: as many are available (Check).
  int32_t NumShared(int32_t index) const;
  void Unshare(int32_t index, std::vector<BlockCopy>& copies);

  // Shares with the cache the longest prefix that it has: of which every group without a window has all blocks and
  // every one with a window those that the next row sees. name(i) is the hash of the full block at index i <
  // max_indices. REQUIRES: the tables are empty.
  void AppendHit(absl::FunctionRef<const BlockHash&(int32_t)> name, int32_t max_indices);

  // Names the blocks at `index` for the cache. Before many are named, PrefetchPublish has the CPU fetch what that
  // touches.
  void Publish(int32_t index, const BlockHash& hash);
  void PrefetchPublish(int32_t index, const BlockHash& hash) const;
  // Takes all blocks out of the cache: their contents are suspect.
  void Unpublish();
  // Appends the blocks that it holds.
  void AppendTo(std::vector<BlockId>& blocks) const;

  // Gives back what the rows at positions `next`, next + 1, ... do not see.
  void ReleasePassed(int64_t next);

  // Gives all back. The end goes first, in all groups, for it is the first that a cached prefix can do without.
  void Clear();

 private:
  // The tables got longer or shorter.
  void CountSlots() { num_slots_ = size() * layout_->block_size; }
  // NumMissing of any groups.
  int64_t NumMissingInGroups(int64_t num_tokens) const;
  // The longest run of indices that ends at `end` or before, such that this group's cache has what the row after it
  // sees: returns where it ends.
  int32_t HitInWindow(int32_t group, absl::FunctionRef<const BlockHash&(int32_t)> name, int32_t end) const;

  int32_t num_slots_ = 0;  // size() * block_size: first, for a decode step asks for it and for nothing else
  const KvTableLayout* layout_;
  BlockPool* pool_;
  absl::InlinedVector<BlockTable, 1> tables_;  // [groups]
};

}  // namespace quire

#endif  // QUIRE_KVCACHE_BLOCK_TABLES_H_
