// PrefixIndex: which block holds the full block of a given name (hash), and the other way round.
//
// A hash table of open addressing with linear probing, at most half full, sized once: no operation allocates. A slot
// holds a block id and 32 bits that say where the search for its name begins, so that neighbours are passed by, and
// moved on erasure, without a look at their names. The names lie by block id, and a lookup compares all 256 bits. A
// block has at most one name and a name at most one block.
//
// Thread: the engine thread. Owned by the BlockPool. It does not know who uses a block.

#ifndef QUIRE_KVCACHE_PREFIX_INDEX_H_
#define QUIRE_KVCACHE_PREFIX_INDEX_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/paged_attention/paged_kv.h"
#include "kvcache/block_hash.h"

namespace quire {

class PrefixIndex {
 public:
  // For blocks 0 .. num_blocks - 1.
  explicit PrefixIndex(int32_t num_blocks);

  // The block named `hash`; nullopt if there is none.
  std::optional<BlockId> Find(const BlockHash& hash) const;

  bool Contains(BlockId block) const { return entries_[block].slot != kNoSlot; }

  // Names `block`; false, and nothing changes, if another block has this name. REQUIRES: !Contains(block).
  bool Insert(const BlockHash& hash, BlockId block);

  // REQUIRES: Contains(block).
  const BlockHash& NameOf(BlockId block) const { return entries_[block].name; }

  // Forgets the name of `block`. REQUIRES: Contains(block).
  void Erase(BlockId block);

  // A large index lies in no CPU's cache. These have the CPU fetch what Insert and Erase will touch, while something
  // else is done; PrefetchErase reads what PrefetchBlock fetches.
  void PrefetchInsert(const BlockHash& hash, BlockId block) const {
    PrefetchBlock(block);
    __builtin_prefetch(&slots_[TagOf(hash) & mask_]);
  }
  void PrefetchBlock(BlockId block) const { __builtin_prefetch(&entries_[block].slot); }
  void PrefetchErase(BlockId block) const {
    if (Contains(block)) __builtin_prefetch(&slots_[entries_[block].slot]);
  }

  // Names known.
  int32_t size() const { return size_; }

 private:
  static constexpr uint32_t kNoSlot = UINT32_MAX;
  // The block of a slot that is empty.
  static constexpr BlockId kEmpty = -1;

  struct Slot {
    uint32_t tag;
    BlockId block;
  };
  struct Entry {
    BlockHash name;  // if it has a slot
    uint32_t slot;   // or kNoSlot
  };

  // Bits of a hash of the name; the search for it begins at the slot that the lowest of them say.
  static uint32_t TagOf(const BlockHash& hash);
  uint32_t NextSlot(uint32_t slot) const { return (slot + 1) & mask_; }
  // The slot of the name, or the empty one at the end of the search for it.
  uint32_t Search(const BlockHash& hash, uint32_t tag) const;

  uint32_t mask_;               // slots - 1; slots is a power of two >= 2 * num_blocks
  std::vector<Slot> slots_;     // [slots]
  std::vector<Entry> entries_;  // [num_blocks]
  int32_t size_ = 0;
};

}  // namespace quire

#endif  // QUIRE_KVCACHE_PREFIX_INDEX_H_
