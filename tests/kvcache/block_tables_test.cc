#include "kvcache/block_tables.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace quire {
namespace {

using testing::ElementsAre;

constexpr int32_t kBlockSize = 4;

std::vector<BlockHash> Names(uint32_t count) {
  std::vector<uint32_t> tokens(size_t{count} * kBlockSize);
  std::iota(tokens.begin(), tokens.end(), 0u);
  return HashBlocks("", tokens, kBlockSize);
}

std::vector<BlockId> Entries(const BlockTable& table) { return {table.data(), table.data() + table.size()}; }

// Fills `indices` blocks in every group, names them and gives them back to `pool`; block index * groups + group.
void FillCache(const KvTableLayout& layout, const std::vector<BlockHash>& names, BlockPool& pool) {
  BlockTables tables(layout, pool);
  for (size_t i = 0; i < names.size(); ++i) {
    tables.AppendNew();
    tables.Publish(static_cast<int32_t>(i), names[i]);
  }
}

TEST(BlockTables, AreOfOneLengthAndKeepWhatTheNextRowSees) {
  const KvTableLayout layout = {.block_size = kBlockSize, .windows = {0, 6}};
  BlockPool pool(10);
  BlockTables tables(layout, pool);
  for (int i = 0; i < 3; ++i) tables.AppendNew();
  EXPECT_EQ(pool.num_held(), 6);
  tables.ReleasePassed(8);  // sees positions 3 to 8
  EXPECT_EQ(pool.num_held(), 6);
  EXPECT_EQ(tables.NumMissing(16), 1 + 0);  // of four, and of three for a window of 6
  tables.ReleasePassed(9);                  // sees 4 to 9: block 0 is passed
  EXPECT_EQ(pool.num_held(), 5);
  EXPECT_EQ(tables.NumMissing(16), 1 + 1);
  EXPECT_THAT(Entries(tables[0]), ElementsAre(0, 2, 4));
  EXPECT_THAT(Entries(tables[1]), ElementsAre(kNoBlock, 3, 5));
  tables.Clear();
  EXPECT_EQ(pool.num_free(), 10);
}

TEST(BlockTables, AHitHasAllBlocksOfFullGroupsAndThoseInsideTheWindow) {
  const KvTableLayout layout = {.block_size = kBlockSize, .windows = {0, 6}};
  const std::vector<BlockHash> names = Names(5);
  const auto name = [&](int32_t i) -> const BlockHash& { return names[i]; };
  BlockPool pool(10);
  FillCache(layout, names, pool);
  {
    BlockTables tables(layout, pool);
    tables.AppendHit(name, 4);  // the next row is 16 and sees 11 to 16: blocks 2 to 4
    EXPECT_THAT(Entries(tables[0]), ElementsAre(0, 2, 4, 6));
    EXPECT_THAT(Entries(tables[1]), ElementsAre(kNoBlock, kNoBlock, 5, 7));
  }
  pool.Unpublish(1);  // block 0 of the windowed group: passed, nobody misses it
  {
    BlockTables tables(layout, pool);
    tables.AppendHit(name, 4);
    EXPECT_EQ(tables.size(), 4);
  }
  pool.Unpublish(7);  // its block 3: of a hit of 4 and of 5 the last row would see it
  {
    BlockTables tables(layout, pool);
    tables.AppendHit(name, 5);
    EXPECT_THAT(Entries(tables[0]), ElementsAre(0, 2, 4));
    EXPECT_THAT(Entries(tables[1]), ElementsAre(kNoBlock, 3, 5));
  }
  pool.Unpublish(2);  // block 1 of the full group; and a hit of 1 would see block 0
  {
    BlockTables tables(layout, pool);
    tables.AppendHit(name, 5);
    EXPECT_EQ(tables.size(), 0);
  }
  EXPECT_EQ(pool.num_held(), 0);
}

TEST(BlockTables, AHitIsTheLongestThereIs) {
  constexpr int32_t kIndices = 12;
  const std::vector<BlockHash> names = Names(kIndices);
  const auto name = [&](int32_t i) -> const BlockHash& { return names[i]; };
  std::mt19937 random(11);
  for (int round = 0; round < 5'000; ++round) {
    KvTableLayout layout = {.block_size = kBlockSize, .windows = {}};
    for (uint32_t groups = 1 + random() % 3; groups > 0; --groups) {
      layout.windows.push_back(random() % 3 == 0 ? 0 : static_cast<int32_t>(1 + random() % 30));
    }
    const int32_t num_groups = layout.num_groups();
    BlockPool pool(kIndices * num_groups);
    FillCache(layout, names, pool);
    std::set<std::pair<int32_t, int32_t>> missing;  // (group, index)
    for (uint32_t holes = random() % 6; holes > 0; --holes) {
      const int32_t group = static_cast<int32_t>(random() % num_groups),
                    index = static_cast<int32_t>(random() % kIndices);
      missing.emplace(group, index);
      pool.Unpublish(index * num_groups + group);
    }

    const int32_t max_indices = static_cast<int32_t>(random() % (kIndices + 1));
    int32_t longest = 0;
    for (int32_t hit = 1; hit <= max_indices; ++hit) {
      bool has_all = true;
      for (int32_t group = 0; group < num_groups; ++group) {
        const int32_t window = layout.windows[group];
        for (int32_t i = 0; i < hit; ++i) {
          const bool is_seen = window == 0 || (i + 1) * kBlockSize - 1 > hit * kBlockSize - window;
          has_all = has_all && !(is_seen && missing.contains({group, i}));
        }
      }
      if (has_all) longest = hit;
    }
    BlockTables tables(layout, pool);
    tables.AppendHit(name, max_indices);
    ASSERT_EQ(tables.size(), longest) << "round " << round;
    for (int32_t group = 0; group < num_groups; ++group) {
      ASSERT_EQ(tables[group].num_absent(), layout.NumPassed(layout.windows[group], longest * kBlockSize));
      for (int32_t i = tables[group].num_absent(); i < longest; ++i) {
        ASSERT_EQ(tables[group][i], i * num_groups + group);
      }
    }
  }
}

TEST(BlockTables, AreSharedUntilTheyAreWritten) {
  const KvTableLayout layout = {.block_size = kBlockSize, .windows = {0, 3}};
  BlockPool pool(8);
  BlockTables first(layout, pool);
  for (int i = 0; i < 2; ++i) first.AppendNew();  // blocks 0 and 1, then 2 and 3
  first.ReleasePassed(6);                         // 1
  BlockTables second(layout, pool);
  second.ShareAll(first);
  EXPECT_EQ(pool.num_held(), 3);
  EXPECT_EQ(second[1].num_absent(), 1);
  EXPECT_EQ(second.NumShared(1), 2);

  std::vector<BlockCopy> copies;
  second.Unshare(1, copies);
  EXPECT_EQ(pool.num_held(), 5);
  EXPECT_THAT(Entries(first[0]), ElementsAre(0, 2));
  EXPECT_THAT(Entries(first[1]), ElementsAre(kNoBlock, 3));
  EXPECT_EQ(second[0][0], 0);
  ASSERT_EQ(copies.size(), 2u);
  for (int32_t group = 0; group < 2; ++group) {
    EXPECT_EQ(copies[group].from, first[group][1]);
    EXPECT_EQ(copies[group].to, second[group][1]);
    EXPECT_NE(copies[group].to, copies[group].from);
  }
  EXPECT_EQ(first.NumShared(1), 0);  // the last one writes where it is
  first.Unshare(1, copies);
  EXPECT_EQ(copies.size(), 2u);
  first.Clear();
  EXPECT_EQ(pool.num_held(), 3);
  second.Clear();
  EXPECT_EQ(pool.num_free(), 8);
}

TEST(BlockTables, TheEndOfAPrefixIsReclaimedFirstInAllGroups) {
  const KvTableLayout layout = {.block_size = kBlockSize, .windows = {0, 100}};
  BlockPool pool(6);
  FillCache(layout, Names(3), pool);
  std::vector<BlockId> reclaimed;
  for (int i = 0; i < 4; ++i) reclaimed.push_back(*pool.Allocate());
  EXPECT_THAT(reclaimed, ElementsAre(4, 5, 2, 3));
}

// The most blocks by the definition of a window.
TEST(KvTableLayout, MaxBlocksIsWhatTheWorstRowSees) {
  for (const int32_t window : {0, 1, 2, 3, 4, 5, 8, 9, 17}) {
    const KvTableLayout layout = {.block_size = kBlockSize, .windows = {window}};
    int32_t most = 0;
    for (int32_t row = 0; row < 60; ++row) {
      const int32_t first_seen = window == 0 ? 0 : std::max(0, row - window + 1);
      most = std::max(most, row / kBlockSize - first_seen / kBlockSize + 1);
      EXPECT_GE(layout.MaxBlocks(row + 1), most) << window << " " << row;
      // Short sequences may be thought to need a block more than they do.
      if (window == 0 || row >= 40) {
        EXPECT_EQ(layout.MaxBlocks(row + 1), most) << window << " " << row;
      }
      EXPECT_EQ(layout.NumPassed(window, row), first_seen / kBlockSize);
    }
  }
}

}  // namespace
}  // namespace quire
