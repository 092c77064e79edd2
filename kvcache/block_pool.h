// BlockPool: hands out blocks of the KV cache by id. It never sees their bytes.
//
// Every block is in one of three states, and the three counts always add up to num_blocks (law 1, conservation):
//   free         nobody uses it and its contents mean nothing
//   held         at least one reference (a block table names it)
//   reclaimable  no reference, but the prefix index knows its contents; the least recently released one is reused first
//
// Allocate takes a free block, else reclaims the oldest reclaimable one (and takes it out of the index). All operations
// are O(1) and allocate nothing after construction (intrusive lists over arrays).
//
// Thread: the engine thread. Owned by the Scheduler.

#ifndef QUIRE_KVCACHE_BLOCK_POOL_H_
#define QUIRE_KVCACHE_BLOCK_POOL_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/paged_attention/paged_kv.h"
#include "kvcache/block_hash.h"
#include "kvcache/kv_event_log.h"
#include "kvcache/prefix_index.h"

namespace quire {

class BlockPool {
 public:
  // The prefix index numbers twice as many slots in 32 bits.
  static constexpr int32_t kMaxBlocks = 1 << 30;

  // REQUIRES: 0 <= num_blocks <= kMaxBlocks.
  explicit BlockPool(int32_t num_blocks);

  BlockPool(const BlockPool&) = delete;  // block tables point at it
  BlockPool& operator=(const BlockPool&) = delete;

  // From now on `events` is told of each name that leaves the index. nullptr: nobody is.
  void Tell(KvEventLog* events) { events_ = events; }

  int32_t num_blocks() const { return static_cast<int32_t>(states_.size()) - 1; }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }
  int32_t num_held() const { return num_blocks() - num_available(); }
  int32_t num_reclaimable() const { return num_reclaimable_; }
  // Blocks that Allocate can still give: free and reclaimable ones.
  int32_t num_available() const { return num_free() + num_reclaimable_; }

  // A block with one reference, not in the index; nullopt when none is available.
  std::optional<BlockId> Allocate();

  // One more reference to a held or reclaimable block (a prefix hit). REQUIRES: not free (Check).
  void AddReference(BlockId block);

  // One reference less; the last makes the block reclaimable if the index knows it, else free. REQUIRES: held (Check).
  void Release(BlockId block);

  int32_t NumReferences(BlockId block) const { return states_[block].references; }

  // The block that holds the full block named `hash`, held or reclaimable.
  std::optional<BlockId> Lookup(const BlockHash& hash) const { return index_.Find(hash); }

  // Tells the index that `block`, held and full, has the contents named `hash`. If another block has them already, that
  // one stays indexed and this one remains private. REQUIRES: held and not in the index (Check).
  void Publish(BlockId block, const BlockHash& hash);
  // Has the CPU fetch what that will touch, while something else is done.
  void PrefetchPublish(BlockId block, const BlockHash& hash) const { index_.PrefetchInsert(hash, block); }

  // Takes a block out of the index (its contents are suspect); a reclaimable one becomes free. Does nothing if it is
  // not there.
  void Unpublish(BlockId block);

 private:
  // One block; without references, if the index knows it, a link of the ring of reclaimable blocks.
  struct State {
    int32_t references;  // 0: free or reclaimable
    BlockId older;
    BlockId newer;
  };

  // Takes a block out of the index.
  void Forget(BlockId block);
  // Makes the oldest reclaimable block a free one, that is in no list. REQUIRES: there is one.
  BlockId Reclaim();
  void AppendReclaimable(BlockId block);
  void RemoveReclaimable(BlockId block);

  PrefixIndex index_;
  KvEventLog* events_ = nullptr;
  // [num_blocks + 1]: the reclaimable ones are a ring from the oldest to the newest; the last element is its anchor.
  std::vector<State> states_;
  std::vector<BlockId> free_;  // a stack: the block released last is the likeliest to be in a CPU's cache
  int32_t num_reclaimable_ = 0;
};

}  // namespace quire

#endif  // QUIRE_KVCACHE_BLOCK_POOL_H_
