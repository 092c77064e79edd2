#include "kvcache/block_hash.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/escaping.h"

namespace quire {
namespace {

std::string Hex(const BlockHash& hash) {
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(hash.data()), hash.size()));
}

// Python: hashlib.sha256(b"quire.v1" + salt), then hashlib.sha256(parent + struct.pack("<4I", ...)).
TEST(BlockHash, IsTheChainOfSha256ThatTheHeaderDefines) {
  EXPECT_EQ(Hex(RootHash("")), "71b39c0bc48bdca25699603536f8d5e4e57316eb60f995410f0d5f2451e908a5");
  const BlockHash root = RootHash("tenant-a");
  EXPECT_EQ(Hex(root), "db16bdfdba6a748d6b442e2151de2b378ecc2ce19940bce6e67827b7c8e71c28");
  const BlockHash first = NextHash(root, {1, 2, 3, 0x01020304});
  EXPECT_EQ(Hex(first), "aa888434384e3c4698cc66fa5ac9601b075f95756dd0413ac997aca14d13032d");
  EXPECT_EQ(Hex(NextHash(first, {5, 6, 7, 8})), "82c6adc4a1f0c896f70de0e8fd1e437cd6e6399f0e07a8964f96de32b7525a41");
}

TEST(BlockHash, OnlyFullBlocksHaveOne) {
  const std::vector<uint32_t> tokens = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  const BlockHash first = NextHash(RootHash("s"), {1, 2, 3, 4});
  const BlockHash second = NextHash(first, {5, 6, 7, 8});
  EXPECT_THAT(HashBlocks("s", tokens, 4), testing::ElementsAre(first, second));
  EXPECT_THAT(HashBlocks("s", absl::MakeSpan(tokens).first(8), 4), testing::ElementsAre(first, second));
  EXPECT_THAT(HashBlocks("s", absl::MakeSpan(tokens).first(7), 4), testing::ElementsAre(first));
  EXPECT_THAT(HashBlocks("s", {}, 4), testing::IsEmpty());
}

TEST(BlockHash, NamesTheWholePrefixAndTheSalt) {
  const std::vector<uint32_t> one = {1, 2, 7, 8}, other = {1, 3, 7, 8};
  const auto a = HashBlocks("", one, 2), b = HashBlocks("", other, 2), c = HashBlocks("salt", one, 2);
  EXPECT_NE(a[1], b[1]);  // the same block after another one
  EXPECT_NE(a[0], c[0]);
  EXPECT_NE(a[1], c[1]);
}

}  // namespace
}  // namespace quire
