#include "kvcache/block_pool.h"

#include "kernels/check.h"

namespace quire {

BlockPool::BlockPool(int32_t num_blocks) : index_(num_blocks), references_(num_blocks, 0), links_(num_blocks + 1) {
  free_.reserve(num_blocks);
  for (BlockId block = num_blocks - 1; block >= 0; --block) free_.push_back(block);  // block 0 is given first
  links_[num_blocks] = {.older = num_blocks, .newer = num_blocks};
}

std::optional<BlockId> BlockPool::Allocate() {
  BlockId block;
  if (!free_.empty()) {
    block = free_.back();
    free_.pop_back();
  } else if (num_reclaimable_ > 0) {
    block = links_.back().newer;  // after the anchor comes the oldest
    RemoveReclaimable(block);
    index_.Erase(block);
  } else {
    return std::nullopt;
  }
  references_[block] = 1;
  return block;
}

void BlockPool::AddReference(BlockId block) {
  if (references_[block] == 0) {
    Check(index_.Contains(block), "a reference to a free block");
    RemoveReclaimable(block);
  }
  ++references_[block];
}

void BlockPool::Release(BlockId block) {
  Check(references_[block] > 0, "a block is released that nobody holds");
  if (--references_[block] > 0) return;
  if (index_.Contains(block)) {
    AppendReclaimable(block);
  } else {
    free_.push_back(block);
  }
}

void BlockPool::Publish(BlockId block, const BlockHash& hash) {
  Check(references_[block] > 0, "a block is published that nobody holds");
  index_.Insert(hash, block);
}

void BlockPool::Unpublish(BlockId block) {
  if (!index_.Contains(block)) return;
  index_.Erase(block);
  if (references_[block] == 0) {
    RemoveReclaimable(block);
    free_.push_back(block);
  }
}

void BlockPool::AppendReclaimable(BlockId block) {
  const BlockId anchor = num_blocks();
  const BlockId newest = links_[anchor].older;
  links_[block] = {.older = newest, .newer = anchor};
  links_[newest].newer = block;
  links_[anchor].older = block;
  ++num_reclaimable_;
}

void BlockPool::RemoveReclaimable(BlockId block) {
  const Links links = links_[block];
  links_[links.older].newer = links.newer;
  links_[links.newer].older = links.older;
  --num_reclaimable_;
}

}  // namespace quire
