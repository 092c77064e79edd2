// BlockTable: the blocks of one sequence by position. Slot s of the block at index i holds position i * block_size + s.
//
// Owns one reference to each of its blocks and gives them back when it is cleared or dies. Move-only.
//
// Thread: the engine thread. Owned by its Sequence; must not outlive its BlockPool. It knows neither tokens nor how
// many slots are in use.

#ifndef QUIRE_KVCACHE_BLOCK_TABLE_H_
#define QUIRE_KVCACHE_BLOCK_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "kernels/check.h"
#include "kernels/paged_attention/paged_kv.h"
#include "kvcache/block_pool.h"

namespace quire {

class BlockTable {
 public:
  explicit BlockTable(BlockPool& pool) : pool_(&pool) {}
  BlockTable(BlockTable&& other) noexcept : pool_(other.pool_), blocks_(std::exchange(other.blocks_, {})) {}
  BlockTable& operator=(BlockTable&& other) noexcept {
    if (this != &other) {
      Clear();
      pool_ = other.pool_;
      blocks_ = std::exchange(other.blocks_, {});
    }
    return *this;
  }
  ~BlockTable() { Clear(); }

  absl::Span<const BlockId> blocks() const { return blocks_; }
  const BlockId* data() const { return blocks_.data(); }
  int32_t size() const { return static_cast<int32_t>(blocks_.size()); }
  BlockId operator[](int32_t index) const { return blocks_[index]; }

  // Room for `num_blocks` blocks: until then nothing below allocates memory.
  void Reserve(int64_t num_blocks) { blocks_.reserve(static_cast<size_t>(num_blocks)); }

  // One more block, taken from the pool. REQUIRES: one is available (Check).
  void AppendNew() {
    const std::optional<BlockId> block = pool_->Allocate();
    Check(block.has_value(), "no block is available");
    blocks_.push_back(*block);
  }

  // One more block, shared with whoever holds it. REQUIRES: held or reclaimable.
  void AppendShared(BlockId block) {
    pool_->AddReference(block);
    blocks_.push_back(block);
  }

  // Gives all blocks back, the last first: of a cached prefix the end is reclaimed before the beginning, on which it
  // depends.
  void Clear() {
    for (; !blocks_.empty(); blocks_.pop_back()) pool_->Release(blocks_.back());
  }

 private:
  BlockPool* pool_;
  std::vector<BlockId> blocks_;
};

}  // namespace quire

#endif  // QUIRE_KVCACHE_BLOCK_TABLE_H_
