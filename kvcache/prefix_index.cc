#include "kvcache/prefix_index.h"

#include <bit>
#include <cstring>

#include "absl/hash/hash.h"
#include "kernels/check.h"

namespace quire {

PrefixIndex::PrefixIndex(int32_t num_blocks)
    : mask_(std::bit_ceil(2 * static_cast<uint32_t>(num_blocks)) - 1),
      slots_(size_t{mask_} + 1, kEmpty),
      slot_of_(num_blocks, kNoSlot),
      hashes_(num_blocks) {}

// SHA-256 is uniform, but a client can search for prompts whose hashes share some bits and so crowd one place of the
// table; absl::Hash is seeded for each process.
uint32_t PrefixIndex::HomeSlot(const BlockHash& hash) const {
  uint64_t head;
  std::memcpy(&head, hash.data(), sizeof(head));
  return static_cast<uint32_t>(absl::Hash<uint64_t>()(head)) & mask_;
}

std::optional<BlockId> PrefixIndex::Find(const BlockHash& hash) const {
  for (uint32_t slot = HomeSlot(hash); slots_[slot] != kEmpty; slot = NextSlot(slot)) {
    if (hashes_[slots_[slot]] == hash) return slots_[slot];
  }
  return std::nullopt;
}

bool PrefixIndex::Insert(const BlockHash& hash, BlockId block) {
  Check(!Contains(block), "a block gets a second name");
  uint32_t slot = HomeSlot(hash);
  for (; slots_[slot] != kEmpty; slot = NextSlot(slot)) {
    if (hashes_[slots_[slot]] == hash) return false;
  }
  slots_[slot] = block;
  slot_of_[block] = slot;
  hashes_[block] = hash;
  ++size_;
  return true;
}

// Closes the gap instead of leaving a tombstone (Knuth, TAOCP vol. 3, 6.4, algorithm R): a later entry of the same run
// moves into the gap if its search, which begins at its home, passes there.
void PrefixIndex::Erase(BlockId block) {
  Check(Contains(block), "a block without a name is forgotten");
  uint32_t gap = slot_of_[block];
  slot_of_[block] = kNoSlot;
  --size_;
  for (uint32_t slot = NextSlot(gap); slots_[slot] != kEmpty; slot = NextSlot(slot)) {
    const BlockId moved = slots_[slot];
    const uint32_t home = HomeSlot(hashes_[moved]);
    const uint32_t probes_to_slot = (slot - home) & mask_;
    const uint32_t gap_to_slot = (slot - gap) & mask_;
    if (probes_to_slot >= gap_to_slot) {
      slots_[gap] = moved;
      slot_of_[moved] = gap;
      gap = slot;
    }
  }
  slots_[gap] = kEmpty;
}

}  // namespace quire
