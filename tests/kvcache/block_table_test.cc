#include "kvcache/block_table.h"

#include <gtest/gtest.h>

#include <utility>

namespace quire {
namespace {

BlockHash HashOf(uint32_t n) { return NextHash(RootHash(""), {n}); }

TEST(BlockTable, GivesItsBlocksBackWhenItDiesTheLastFirst) {
  BlockPool pool(3);
  {
    BlockTable table(pool);
    for (uint32_t i = 0; i < 3; ++i) {
      table.AppendNew();
      pool.Publish(table[i], HashOf(i));
    }
    EXPECT_EQ(pool.num_held(), 3);
  }
  EXPECT_EQ(pool.num_reclaimable(), 3);
  EXPECT_EQ(pool.Allocate(), 2);  // the end of the prefix goes first; its beginning is of use without it
  EXPECT_EQ(pool.Lookup(HashOf(0)), 0);
}

TEST(BlockTable, SharesBlocksAndMovesWithoutReleasing) {
  BlockPool pool(2);
  BlockTable first(pool);
  first.AppendNew();
  BlockTable second(pool);
  second.AppendShared(first[0]);
  BlockTable third = std::move(first);
  EXPECT_EQ(first.size(), 0);  // NOLINT(bugprone-use-after-move): that is what is tested
  third.Clear();
  EXPECT_EQ(pool.num_held(), 1);
  second = BlockTable(pool);
  EXPECT_EQ(pool.num_free(), 2);
}

TEST(BlockTable, GivesBackWhatAWindowHasPassedAndKeepsItsPlace) {
  BlockPool pool(4);
  BlockTable table(pool);
  for (int i = 0; i < 3; ++i) table.AppendNew();
  table.ReleaseBefore(2);
  EXPECT_EQ(pool.num_free(), 3);
  EXPECT_EQ(table.size(), 3);
  EXPECT_EQ(table.num_absent(), 2);
  EXPECT_EQ(table[0], kNoBlock);
  EXPECT_EQ(table[1], kNoBlock);
  EXPECT_EQ(table[2], 2);
  EXPECT_EQ(table.blocks().size(), 1u);
  table.ReleaseBefore(1);  // long gone
  EXPECT_EQ(table.num_absent(), 2);
  table.PopBack();
  EXPECT_EQ(pool.num_free(), 4);
  table.PopBack();
  EXPECT_EQ(table.num_absent(), 1);
  table.Clear();
  EXPECT_EQ(table.size(), 0);
  EXPECT_EQ(table.num_absent(), 0);
  table.AppendAbsent(2);
  table.AppendNew();
  EXPECT_EQ(table.size(), 3);
}

}  // namespace
}  // namespace quire
