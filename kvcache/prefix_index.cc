#include "kvcache/prefix_index.h"

#include <bit>
#include <cstring>

#include "absl/hash/hash.h"
#include "kernels/check.h"

namespace quire {

PrefixIndex::PrefixIndex(int32_t num_blocks)
    : mask_(std::bit_ceil(2 * static_cast<uint32_t>(num_blocks)) - 1),
      slots_(size_t{mask_} + 1, {.tag = 0, .block = kEmpty}),
      entries_(num_blocks, {.name = {}, .slot = kNoSlot}) {}

// SHA-256 is uniform, but a client can search for prompts whose hashes share some bits and so crowd one place of the
// table; absl::Hash is seeded for each process.
uint32_t PrefixIndex::TagOf(const BlockHash& hash) {
  uint64_t head;
  std::memcpy(&head, hash.data(), sizeof(head));
  return static_cast<uint32_t>(absl::Hash<uint64_t>()(head));
}

uint32_t PrefixIndex::Search(const BlockHash& hash, uint32_t tag) const {
  uint32_t slot = tag & mask_;
  for (; slots_[slot].block != kEmpty; slot = NextSlot(slot)) {
    if (slots_[slot].tag == tag && entries_[slots_[slot].block].name == hash) break;
  }
  return slot;
}

std::optional<BlockId> PrefixIndex::Find(const BlockHash& hash) const {
  const BlockId block = slots_[Search(hash, TagOf(hash))].block;
  return block == kEmpty ? std::nullopt : std::optional<BlockId>(block);
}

bool PrefixIndex::Insert(const BlockHash& hash, BlockId block) {
  Check(!Contains(block), "a block gets a second name");
  const uint32_t tag = TagOf(hash), slot = Search(hash, tag);
  if (slots_[slot].block != kEmpty) return false;
  slots_[slot] = {.tag = tag, .block = block};
  entries_[block] = {.name = hash, .slot = slot};
  ++size_;
  return true;
}

// Closes the gap instead of leaving a tombstone (Knuth, TAOCP vol. 3, 6.4, algorithm R): a later entry of the same run
// moves into the gap if its search, which begins at its home, passes there.
void PrefixIndex::Erase(BlockId block) {
  Check(Contains(block), "a block without a name is forgotten");
  uint32_t gap = entries_[block].slot;
  entries_[block].slot = kNoSlot;
  --size_;
  for (uint32_t slot = NextSlot(gap); slots_[slot].block != kEmpty; slot = NextSlot(slot)) {
    const uint32_t probes_to_slot = (slot - slots_[slot].tag) & mask_;
    const uint32_t gap_to_slot = (slot - gap) & mask_;
    if (probes_to_slot >= gap_to_slot) {
      slots_[gap] = slots_[slot];
      entries_[slots_[gap].block].slot = gap;
      gap = slot;
    }
  }
  slots_[gap].block = kEmpty;
}

}  // namespace quire
