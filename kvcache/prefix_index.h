// PrefixIndex: which block holds the full block of a given name (hash), and the other way round.
//
// A hash table of open addressing with linear probing, at most half full, sized once: no operation allocates. Slots
// hold only block ids; the hashes lie by block id, and a lookup compares all 256 bits. A block has at most one name and
// a name at most one block.
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

  bool Contains(BlockId block) const { return slot_of_[block] != kNoSlot; }

  // Names `block`; false, and nothing changes, if another block has this name. REQUIRES: !Contains(block).
  bool Insert(const BlockHash& hash, BlockId block);

  // Forgets the name of `block`. REQUIRES: Contains(block).
  void Erase(BlockId block);

  // Names known.
  int32_t size() const { return size_; }

 private:
  static constexpr uint32_t kNoSlot = UINT32_MAX;
  // The state of a slot that is not the id of a block.
  static constexpr BlockId kEmpty = -1;

  // Where the search for `hash` begins.
  uint32_t HomeSlot(const BlockHash& hash) const;
  uint32_t NextSlot(uint32_t slot) const { return (slot + 1) & mask_; }

  uint32_t mask_;                  // slots - 1; slots is a power of two >= 2 * num_blocks
  std::vector<BlockId> slots_;     // [slots]: a block or kEmpty
  std::vector<uint32_t> slot_of_;  // [num_blocks]: its slot, or kNoSlot
  std::vector<BlockHash> hashes_;  // [num_blocks]: its name, if it has a slot
  int32_t size_ = 0;
};

}  // namespace quire

#endif  // QUIRE_KVCACHE_PREFIX_INDEX_H_
