#include "kvcache/block_pool.h"

#include "kernels/check.h"

namespace quire {

BlockPool::BlockPool(int32_t num_blocks) : index_(num_blocks), states_(num_blocks + 1) {
  free_.reserve(num_blocks);
  for (BlockId block = num_blocks - 1; block >= 0; --block) free_.push_back(block);  // block 0 is given first
  states_[num_blocks] = {.references = 0, .older = num_blocks, .newer = num_blocks};
}

std::optional<BlockId> BlockPool::Allocate() {
  BlockId block;
  if (!free_.empty()) {
    block = free_.back();
    free_.pop_back();
  } else if (num_reclaimable_ > 0) {
    block = Reclaim();
  } else {
    return std::nullopt;
  }
  states_[block].references = 1;
  return block;
}

void BlockPool::AddReference(BlockId block) {
  if (states_[block].references == 0) {
    Check(index_.Contains(block), "a reference to a free block");
    RemoveReclaimable(block);
  }
  ++states_[block].references;
}

void BlockPool::Release(BlockId block) {
  Check(states_[block].references > 0, "a block is released that nobody holds");
  if (--states_[block].references > 0) return;
  if (index_.Contains(block)) {
    AppendReclaimable(block);
  } else {
    free_.push_back(block);
  }
}

void BlockPool::Publish(BlockId block, const BlockHash& hash) {
  Check(states_[block].references > 0, "a block is published that nobody holds");
  index_.Insert(hash, block);
}

void BlockPool::Unpublish(BlockId block) {
  if (!index_.Contains(block)) return;
  Forget(block);
  if (states_[block].references == 0) {
    RemoveReclaimable(block);
    free_.push_back(block);
  }
}

void BlockPool::Forget(BlockId block) {
  if (events_ != nullptr) events_->Removed(index_.NameOf(block));
  index_.Erase(block);
}

BlockId BlockPool::Reclaim() {
  const BlockId anchor = num_blocks(), block = states_[anchor].newer;  // after the anchor comes the oldest
  RemoveReclaimable(block);
  Forget(block);
  // Where one is reclaimed the next two soon will be: they lie anywhere.
  const BlockId next = states_[anchor].newer;
  if (next == anchor) return block;
  index_.PrefetchErase(next);
  const BlockId second = states_[next].newer;
  if (second == anchor) return block;
  __builtin_prefetch(&states_[second]);
  index_.PrefetchBlock(second);
  return block;
}

void BlockPool::AppendReclaimable(BlockId block) {
  const BlockId anchor = num_blocks();
  const BlockId newest = states_[anchor].older;
  states_[block].older = newest;
  states_[block].newer = anchor;
  states_[newest].newer = block;
  states_[anchor].older = block;
  ++num_reclaimable_;
}

void BlockPool::RemoveReclaimable(BlockId block) {
  const State state = states_[block];
  states_[state.older].newer = state.newer;
  states_[state.newer].older = state.older;
  --num_reclaimable_;
}

}  // namespace quire
