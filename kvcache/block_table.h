// BlockTable: the blocks of one sequence by position, in one group of layers. Slot s of the block at index i holds
// position i * block_size + s.
//
// The first entries may be absent (kNoBlock): a sliding window has passed them, and nobody reads them any more.
//
// Owns one reference to each of its blocks and gives them back when it is cleared or dies. Move-only.
//
// Thread: the engine thread. Owned by its Sequence; must not outlive its BlockPool. It knows neither tokens nor how
// many slots are in use.

#ifndef QUIRE_KVCACHE_BLOCK_TABLE_H_
#define QUIRE_KVCACHE_BLOCK_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
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
  BlockTable(BlockTable&& other) noexcept
      : pool_(other.pool_),
        num_absent_(std::exchange(other.num_absent_, 0)),
        blocks_(std::exchange(other.blocks_, {})) {}
  BlockTable& operator=(BlockTable&& other) noexcept {
    if (this != &other) {
      Clear();
      pool_ = other.pool_;
      num_absent_ = std::exchange(other.num_absent_, 0);
      blocks_ = std::exchange(other.blocks_, {});
    }
    return *this;
  }
  ~BlockTable() { Clear(); }

  // The blocks that it holds, those of the indices [num_absent(), size()).
  absl::Span<const BlockId> blocks() const { return absl::MakeSpan(blocks_).subspan(num_absent_); }
  int32_t num_absent() const { return num_absent_; }
  // [size()]: by index, the absent ones kNoBlock.
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

  // A new block from the pool in the place of another. REQUIRES: one is available (Check); the entry is not absent.
  void ReplaceNew(int32_t index) {
    const std::optional<BlockId> block = pool_->Allocate();
    Check(block.has_value(), "no block is available");
    pool_->Release(std::exchange(blocks_[index], *block));
  }

  // Entries for blocks that the window has passed already. REQUIRES: the table holds nothing yet.
  void AppendAbsent(int32_t count) {
    Check(size() == num_absent_, "absent blocks come first");
    blocks_.resize(blocks_.size() + count, kNoBlock);
    num_absent_ += count;
  }

  // Gives back what lies before `index`. REQUIRES: index <= size().
  void ReleaseBefore(int32_t index) {
    for (; num_absent_ < index; ++num_absent_) pool_->Release(std::exchange(blocks_[num_absent_], kNoBlock));
  }

  // Takes away the last entry and gives its block back, if it has one. REQUIRES: size() > 0.
  void PopBack() {
    const BlockId block = blocks_.back();
    blocks_.pop_back();
    if (block != kNoBlock) {
      pool_->Release(block);
    } else {
      --num_absent_;
    }
  }

  // Gives all blocks back, the last first: of a cached prefix the end is reclaimed before the beginning, on which it
  // depends.
  void Clear() {
    while (!blocks_.empty()) PopBack();
  }

 private:
  BlockPool* pool_;
  int32_t num_absent_ = 0;
  std::vector<BlockId> blocks_;
};

}  // namespace quire

#endif  // QUIRE_KVCACHE_BLOCK_TABLE_H_
