#include "kvcache/prefix_index.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace quire {
namespace {

BlockHash HashOf(uint32_t n) { return NextHash(RootHash(""), {n}); }

TEST(PrefixIndex, FindsABlockByItsNameUntilItIsErased) {
  PrefixIndex index(4);
  EXPECT_EQ(index.Find(HashOf(1)), std::nullopt);
  EXPECT_TRUE(index.Insert(HashOf(1), 3));
  EXPECT_TRUE(index.Contains(3));
  EXPECT_EQ(index.Find(HashOf(1)), 3);
  index.Erase(3);
  EXPECT_FALSE(index.Contains(3));
  EXPECT_EQ(index.Find(HashOf(1)), std::nullopt);
  EXPECT_EQ(index.size(), 0);
}

TEST(PrefixIndex, TheFirstBlockOfANameKeepsIt) {
  PrefixIndex index(4);
  EXPECT_TRUE(index.Insert(HashOf(1), 0));
  EXPECT_FALSE(index.Insert(HashOf(1), 1));
  EXPECT_EQ(index.Find(HashOf(1)), 0);
  EXPECT_FALSE(index.Contains(1));
}

TEST(PrefixIndex, ComparesAll256Bits) {
  PrefixIndex index(300);
  const BlockHash hash = HashOf(1);
  ASSERT_TRUE(index.Insert(hash, 0));
  for (int bit = 0; bit < 256; ++bit) {
    BlockHash other = hash;
    other[bit / 8] ^= uint8_t(1u << (bit % 8));
    EXPECT_EQ(index.Find(other), std::nullopt) << "bit " << bit;
  }
}

TEST(PrefixIndex, AgreesWithAMapOverRandomInsertionsAndErasures) {
  constexpr int32_t kNumBlocks = 64;
  constexpr uint32_t kNumNames = 100;
  std::mt19937 random(7);
  PrefixIndex index(kNumBlocks);
  std::map<uint32_t, BlockId> block_of;
  std::map<BlockId, uint32_t> name_of;
  for (int i = 0; i < 50'000; ++i) {
    const auto block = static_cast<BlockId>(random() % kNumBlocks);
    const uint32_t name = random() % kNumNames;
    if (name_of.count(block) != 0) {
      index.Erase(block);
      block_of.erase(name_of[block]);
      name_of.erase(block);
    } else {
      ASSERT_EQ(index.Insert(HashOf(name), block), block_of.emplace(name, block).second);
      if (block_of[name] == block) name_of[block] = name;
    }
    ASSERT_EQ(index.size(), static_cast<int32_t>(block_of.size()));
    const uint32_t asked = random() % kNumNames;
    const auto found = block_of.find(asked);
    ASSERT_EQ(index.Find(HashOf(asked)),
              found == block_of.end() ? std::nullopt : std::optional<BlockId>(found->second));
  }
}

}  // namespace
}  // namespace quire
