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

}  // namespace
}  // namespace quire
