#include "kvcache/block_tables.h"

#include <algorithm>
#include <optional>

#include "kernels/check.h"

namespace quire {

BlockTables::BlockTables(const KvTableLayout& layout, BlockPool& pool) : layout_(&layout), pool_(&pool) {
  tables_.reserve(layout.num_groups());
  for (int32_t group = 0; group < layout.num_groups(); ++group) tables_.emplace_back(pool);
}

int64_t BlockTables::NumMissingInGroups(int64_t num_tokens) const {
  int64_t num_missing = 0;
  for (int32_t group = 0; group < num_groups(); ++group) {
    const int64_t needed = layout_->MaxBlocksInGroup(layout_->windows[group], num_tokens);
    // A long chunk may have taken more than a window needs in the end.
    num_missing += std::max<int64_t>(0, needed - static_cast<int64_t>(tables_[group].blocks().size()));
  }
  return num_missing;
}

void BlockTables::Reserve(int64_t num_indices) {
  for (BlockTable& table : tables_) table.Reserve(num_indices);
}

void BlockTables::AppendNew() {
  for (BlockTable& table : tables_) table.AppendNew();
  CountSlots();
}

void BlockTables::ShareAll(const BlockTables& other) {
  for (int32_t group = 0; group < num_groups(); ++group) {
    BlockTable& table = tables_[group];
    table.AppendAbsent(other.tables_[group].num_absent());
    for (const BlockId block : other.tables_[group].blocks()) table.AppendShared(block);
  }
  CountSlots();
}

int32_t BlockTables::NumShared(int32_t index) const {
  int32_t num_shared = 0;
  for (const BlockTable& table : tables_) num_shared += pool_->NumReferences(table[index]) > 1 ? 1 : 0;
  return num_shared;
}

void BlockTables::Unshare(int32_t index, std::vector<BlockCopy>& copies) {
  for (BlockTable& table : tables_) {
    const BlockId shared = table[index];
    if (pool_->NumReferences(shared) == 1) continue;
    table.ReplaceNew(index);
    copies.push_back({.from = shared, .to = table[index]});
  }
}

void BlockTables::AppendHit(absl::FunctionRef<const BlockHash&(int32_t)> name, int32_t max_indices) {
  Check(size() == 0, "a sequence that has blocks looks for its prefix");
  int32_t hit = max_indices;
  for (int32_t group = 0; group < num_groups(); ++group) {
    if (layout_->windows[group] > 0) continue;
    for (int32_t i = 0; i < hit; ++i) {
      const std::optional<BlockId> block = pool_->Lookup(InGroup(name(i), group));
      if (!block) break;
      tables_[group].AppendShared(*block);
    }
    hit = tables_[group].size();
  }
  // A group that shortens the hit puts it to all others again.
  for (int32_t group = 0, num_agreed = 0; num_agreed < num_groups(); group = (group + 1) % num_groups()) {
    const int32_t shorter = layout_->windows[group] > 0 ? HitInWindow(group, name, hit) : hit;
    num_agreed = shorter < hit ? 1 : num_agreed + 1;
    hit = shorter;
  }
  for (int32_t group = 0; group < num_groups(); ++group) {
    BlockTable& table = tables_[group];
    while (table.size() > hit) table.PopBack();
    if (table.size() == hit) continue;
    table.AppendAbsent(layout_->NumPassed(layout_->windows[group], int64_t{hit} * layout_->block_size));
    while (table.size() < hit) table.AppendShared(*pool_->Lookup(InGroup(name(table.size()), group)));
  }
  CountSlots();
}

int32_t BlockTables::HitInWindow(int32_t group, absl::FunctionRef<const BlockHash&(int32_t)> name, int32_t end) const {
  const auto first_seen = [&](int32_t hit) {
    return layout_->NumPassed(layout_->windows[group], int64_t{hit} * layout_->block_size);
  };
  for (int32_t i = end - 1; i >= first_seen(end); --i) {
    if (!pool_->Lookup(InGroup(name(i), group))) end = i;
  }
  return end;
}

void BlockTables::Publish(int32_t index, const BlockHash& hash) {
  for (int32_t group = 0; group < num_groups(); ++group) {
    const BlockTable& table = tables_[group];
    if (index >= table.num_absent()) pool_->Publish(table[index], InGroup(hash, group));
  }
}

void BlockTables::PrefetchPublish(int32_t index, const BlockHash& hash) const {
  for (int32_t group = 0; group < num_groups(); ++group) {
    const BlockTable& table = tables_[group];
    if (index >= table.num_absent()) pool_->PrefetchPublish(table[index], InGroup(hash, group));
  }
}

void BlockTables::Unpublish() {
  for (const BlockTable& table : tables_) {
    for (const BlockId block : table.blocks()) pool_->Unpublish(block);
  }
}

void BlockTables::AppendTo(std::vector<BlockId>& blocks) const {
  for (const BlockTable& table : tables_) blocks.insert(blocks.end(), table.blocks().begin(), table.blocks().end());
}

void BlockTables::ReleasePassed(int64_t next) {
  for (int32_t group = 0; group < num_groups(); ++group) {
    const int32_t window = layout_->windows[group];
    if (window > 0) tables_[group].ReleaseBefore(layout_->NumPassed(window, next));
  }
}

void BlockTables::Clear() {
  while (size() > 0) {
    for (BlockTable& table : tables_) table.PopBack();
  }
  CountSlots();
}

}  // namespace quire
