#include "kvcache/kv_cache.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace quire {
namespace {

std::unique_ptr<Backend> RefBackend() {
  BackendOptions options;
  options.kind = BackendKind::kRef;
  return *CreateBackend(options);
}

TEST(KvCache, LayersTileTheAllocationWithoutOverlap) {
  const KvCacheSpec spec =
      MakeKvCacheSpec({.kv_heads = 2, .head_dim = 4, .block_size = 8, .dtype = DType::kFloat32}, 3);
  const std::unique_ptr<Backend> backend = RefBackend();
  const auto cache = KvCache::Create(spec, 5, *backend);
  ASSERT_TRUE(cache.ok()) << cache.status();
  // Of one layer: 5 blocks * 2 KV heads * 8 slots * 4 dims of 4 bytes for K, the same for V.
  constexpr size_t kBytes = 5 * 2 * 8 * 4 * 4;
  const char* expected = static_cast<const char*>(cache->LayerView(0).k);
  for (int32_t layer = 0; layer < 3; ++layer) {
    const PagedKv view = cache->LayerView(layer);
    EXPECT_EQ(view.k, expected);
    EXPECT_EQ(view.v, expected + kBytes);
    EXPECT_EQ(view.num_blocks * view.BlockElements() * sizeof(float), kBytes);
    EXPECT_EQ(view.block_size, 8);
    EXPECT_EQ(view.kv_heads, 2);
    EXPECT_EQ(view.head_dim, 4);
    EXPECT_EQ(view.dtype, DType::kFloat32);
    expected += 2 * kBytes;
  }
  EXPECT_EQ(2 * kBytes * 3, spec.BytesPerBlock() * 5);
}

TEST(KvCache, LayersOfTheSamePlaceInDifferentGroupsShareTheirBytes) {
  const KvCacheSpec spec = MakeKvCacheSpec({.kv_heads = 2, .head_dim = 4, .block_size = 8, .dtype = DType::kFloat32},
                                           std::vector<int32_t>{16, 0, 16, 0});
  const std::unique_ptr<Backend> backend = RefBackend();
  const auto cache = KvCache::Create(spec, 5, *backend);
  ASSERT_TRUE(cache.ok()) << cache.status();
  EXPECT_EQ(cache->LayerView(0).k, cache->LayerView(1).k);
  EXPECT_EQ(cache->LayerView(2).v, cache->LayerView(3).v);
  EXPECT_NE(cache->LayerView(0).k, cache->LayerView(2).k);
}

TEST(KvCache, KeepsLatentsOneLayerAfterTheOther) {
  const KvCacheSpec spec = MakeKvCacheSpec({.latent_dim = 6, .rope_dim = 2, .block_size = 8}, 2);
  const std::unique_ptr<Backend> backend = RefBackend();
  const auto cache = KvCache::Create(spec, 5, *backend);
  ASSERT_TRUE(cache.ok()) << cache.status();
  const LatentKv first = cache->LatentView(0), second = cache->LatentView(1);
  EXPECT_EQ(first.latent_dim, 6);
  EXPECT_EQ(first.rope_dim, 2);
  EXPECT_EQ(first.num_blocks, 5);
  EXPECT_EQ(static_cast<char*>(second.data) - static_cast<char*>(first.data), 5 * first.BlockElements() * 2);
}

TEST(KvCache, ItsRegionsAreAllItsBytes) {
  for (const KvShape& shape : {KvShape{.kv_heads = 2, .head_dim = 4, .block_size = 8},
                               KvShape{.latent_dim = 6, .rope_dim = 2, .block_size = 8}}) {
    const KvCacheSpec spec = MakeKvCacheSpec(shape, 3);
    const std::unique_ptr<Backend> backend = RefBackend();
    const auto cache = KvCache::Create(spec, 5, *backend);
    ASSERT_TRUE(cache.ok()) << cache.status();
    uint64_t bytes = 0;
    for (const BlockRegion& region : cache->regions()) {
      EXPECT_EQ(region.data, static_cast<char*>(cache->regions()[0].data) + bytes);
      EXPECT_EQ(region.num_blocks, 5);
      bytes += region.block_bytes * region.num_blocks;
    }
    EXPECT_EQ(bytes, spec.BytesPerBlock() * 5);
  }
}

TEST(KvCache, MoreThanTheDeviceHasIsAnErrorThatNamesTheSize) {
  const KvCacheSpec spec = MakeKvCacheSpec({.kv_heads = 1 << 10, .head_dim = 1 << 10, .block_size = 256}, 1 << 12);
  const std::unique_ptr<Backend> backend = RefBackend();
  const auto cache = KvCache::Create(spec, 1 << 20, *backend);
  ASSERT_FALSE(cache.ok());
  EXPECT_EQ(cache.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(cache.status().message().find("1048576 blocks"), absl::string_view::npos) << cache.status();
}

}  // namespace
}  // namespace quire
