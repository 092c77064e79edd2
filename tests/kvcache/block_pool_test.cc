#include "kvcache/block_pool.h"

#include <gtest/gtest.h>

#include <set>

namespace quire {
namespace {

BlockHash HashOf(uint32_t n) { return NextHash(RootHash(""), {n}); }

struct Counts {
  int32_t free, held, reclaimable;
  bool operator==(const Counts&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Counts& c) {
  return out << c.free << " free, " << c.held << " held, " << c.reclaimable << " reclaimable";
}
Counts CountsOf(const BlockPool& pool) { return {pool.num_free(), pool.num_held(), pool.num_reclaimable()}; }

TEST(BlockPool, GivesEachBlockOnceAndThenNone) {
  BlockPool pool(3);
  std::set<BlockId> blocks;
  for (int i = 0; i < 3; ++i) blocks.insert(*pool.Allocate());
  EXPECT_EQ(blocks, (std::set<BlockId>{0, 1, 2}));
  EXPECT_EQ(pool.Allocate(), std::nullopt);
  EXPECT_EQ(CountsOf(pool), (Counts{0, 3, 0}));
}

TEST(BlockPool, ABlockIsHeldUntilItsLastReferenceIsReleased) {
  BlockPool pool(2);
  const BlockId block = *pool.Allocate();
  pool.AddReference(block);
  pool.Release(block);
  EXPECT_EQ(CountsOf(pool), (Counts{1, 1, 0}));
  pool.Release(block);
  EXPECT_EQ(CountsOf(pool), (Counts{2, 0, 0}));
}

TEST(BlockPool, APublishedBlockIsReclaimableAndCanBeHadBack) {
  BlockPool pool(2);
  const BlockId block = *pool.Allocate();
  pool.Publish(block, HashOf(1));
  EXPECT_EQ(CountsOf(pool), (Counts{1, 1, 0}));
  pool.Release(block);
  EXPECT_EQ(CountsOf(pool), (Counts{1, 0, 1}));
  EXPECT_EQ(pool.num_available(), 2);
  EXPECT_EQ(pool.Lookup(HashOf(1)), block);
  pool.AddReference(block);
  EXPECT_EQ(CountsOf(pool), (Counts{1, 1, 0}));
  EXPECT_EQ(pool.Lookup(HashOf(1)), block);
}

TEST(BlockPool, ReclaimsTheLeastRecentlyReleasedAndOnlyWhenNoneIsFree) {
  BlockPool pool(4);
  BlockId block[3];
  for (uint32_t i = 0; i < 3; ++i) {
    block[i] = *pool.Allocate();
    pool.Publish(block[i], HashOf(i));
  }
  for (int i : {1, 0, 2}) pool.Release(block[i]);
  pool.AddReference(block[1]);  // used again: from the oldest to the newest
  pool.Release(block[1]);

  EXPECT_EQ(pool.Allocate(), 3);  // the free one
  EXPECT_EQ(pool.Allocate(), block[0]);
  EXPECT_EQ(pool.Lookup(HashOf(0)), std::nullopt);
  EXPECT_EQ(pool.Lookup(HashOf(2)), block[2]);
  EXPECT_EQ(pool.Allocate(), block[2]);
  EXPECT_EQ(pool.Allocate(), block[1]);
  EXPECT_EQ(pool.Allocate(), std::nullopt);
  EXPECT_EQ(CountsOf(pool), (Counts{0, 4, 0}));
}

TEST(BlockPool, OfTwoBlocksOfTheSameContentsTheFirstIsIndexed) {
  BlockPool pool(2);
  const BlockId first = *pool.Allocate(), second = *pool.Allocate();
  pool.Publish(first, HashOf(1));
  pool.Publish(second, HashOf(1));
  EXPECT_EQ(pool.Lookup(HashOf(1)), first);
  pool.Release(second);
  EXPECT_EQ(CountsOf(pool), (Counts{1, 1, 0}));  // private: free at once
}

TEST(BlockPool, UnpublishTakesAwayTheNameAndFreesTheReclaimable) {
  BlockPool pool(2);
  const BlockId held = *pool.Allocate(), released = *pool.Allocate();
  pool.Publish(held, HashOf(1));
  pool.Publish(released, HashOf(2));
  pool.Release(released);
  pool.Unpublish(held);
  pool.Unpublish(released);
  pool.Unpublish(released);  // without a name: nothing
  EXPECT_EQ(CountsOf(pool), (Counts{1, 1, 0}));
  EXPECT_EQ(pool.Lookup(HashOf(1)), std::nullopt);
  EXPECT_EQ(pool.Lookup(HashOf(2)), std::nullopt);
}

TEST(BlockPoolDeathTest, OurOwnMistakesAbort) {
  BlockPool pool(1);
  EXPECT_DEATH(pool.Release(0), "released that nobody holds");
  EXPECT_DEATH(pool.AddReference(0), "reference to a free block");
  EXPECT_DEATH(pool.Publish(0, HashOf(1)), "published that nobody holds");
}

}  // namespace
}  // namespace quire
