#include "kvcache/kv_cache_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace quire {
namespace {

// Llama-3-8B: 32 layers, 8 KV heads (of 32 query heads) of 128, bfloat16.
const KvCacheSpec kLlama3 = MakeKvCacheSpec({.kv_heads = 8, .head_dim = 128, .block_size = 16}, 32);

TEST(KvCacheSpec, BytesOfLlama3ByHand) {
  EXPECT_EQ(kLlama3.BytesPerTokenPerLayer(), 2u * 8 * 128 * 2);
  EXPECT_EQ(kLlama3.BytesPerToken(), 131'072u);
  EXPECT_EQ(kLlama3.BytesPerBlock(), 2u << 20);
  EXPECT_EQ(kLlama3.BlocksIn(uint64_t{24} << 30), 12'288u);
  EXPECT_EQ(kLlama3.BlocksIn((2u << 20) - 1), 0u);
}

TEST(KvCacheSpec, Float32TakesTwiceTheBytes) {
  KvCacheSpec spec = kLlama3;
  spec.dtype = DType::kFloat32;
  EXPECT_EQ(spec.BytesPerToken(), 262'144u);
}

TEST(KvCacheSpec, ASequenceTakesWholeBlocks) {
  EXPECT_EQ(kLlama3.BlocksFor(0), 0);
  EXPECT_EQ(kLlama3.BlocksFor(1), 1);
  EXPECT_EQ(kLlama3.BlocksFor(16), 1);
  EXPECT_EQ(kLlama3.BlocksFor(17), 2);
}

using testing::ElementsAre;

// 61 layers of a latent of 512 and a key part of 64.
TEST(KvCacheSpec, DeepSeekV3KeepsALatentNotTheHeads) {
  const KvCacheSpec spec = MakeKvCacheSpec({.latent_dim = 512, .rope_dim = 64}, 61);
  EXPECT_EQ(spec.BytesPerToken(), 70'272u);
  EXPECT_EQ(spec.groups.size(), 1u);
  EXPECT_EQ(spec.groups[0].kind, KvKind::kLatent);
  EXPECT_EQ(MakeKvCacheSpec({.latent_dim = 512, .rope_dim = 64}, 60).BytesPerToken(), 69'120u);  // V2
  EXPECT_EQ(MakeKvCacheSpec({.latent_dim = 512, .rope_dim = 64}, 27).BytesPerToken(), 31'104u);  // V2-Lite
}

// Mistral 7B: every layer has a window of 4,096.
TEST(KvCacheSpec, AWindowBoundsWhatASequenceKeeps) {
  const KvCacheSpec spec = MakeKvCacheSpec({.kv_heads = 8, .head_dim = 128}, std::vector<int32_t>(32, 4096));
  ASSERT_EQ(spec.groups.size(), 1u);
  EXPECT_EQ(spec.groups[0].kind, KvKind::kWindow);
  EXPECT_EQ(spec.BytesPerToken(), 131'072u);
  EXPECT_EQ(spec.BytesPerSequence(4'095), 131'072u * 4'095);
  EXPECT_EQ(spec.BytesPerSequence(1'000'000), uint64_t{512} << 20);
  EXPECT_EQ(spec.BlocksFor(4'096), 256);
  EXPECT_EQ(spec.BlocksFor(1'000'000), 257);  // 4,096 positions that begin inside a block
  EXPECT_EQ(spec.TokensIn(257, 32'768), 32'768);
  EXPECT_EQ(spec.TokensIn(256, 32'768), 4'096);
}

// Layers 0, 2, 4, ... with a window, as in Gemma 2 and gpt-oss: two groups of the same size.
TEST(KvCacheSpec, LayersOfOneWindowFormAGroup) {
  const std::vector<int32_t> windows = {16, 0, 16, 0, 16, 0};
  const KvCacheSpec spec = MakeKvCacheSpec({.kv_heads = 2, .head_dim = 64, .block_size = 8}, windows);
  ASSERT_EQ(spec.groups.size(), 2u);
  EXPECT_THAT(spec.groups[0].layers, ElementsAre(1, 3, 5));
  EXPECT_THAT(spec.groups[1].layers, ElementsAre(0, 2, 4));
  EXPECT_EQ(spec.groups[0].kind, KvKind::kFull);
  EXPECT_EQ(spec.groups[1].kind, KvKind::kWindow);
  EXPECT_THAT(spec.Windows(), ElementsAre(0, 16));
  EXPECT_EQ(spec.NumLayers(), 6);
  EXPECT_EQ(spec.GroupOf(4), 1);
  EXPECT_EQ(spec.PlaceInGroup(4), 2);
  EXPECT_EQ(spec.GroupOf(1), 0);
  EXPECT_EQ(spec.PlaceInGroup(1), 0);
  EXPECT_EQ(spec.BytesPerBlock(), 3u * 2 * 2 * 64 * 2 * 8);
  EXPECT_EQ(spec.BytesPerSequence(100), (100u + 16) * 3 * 2 * 2 * 64 * 2);
  EXPECT_EQ(spec.BlocksFor(100), 13 + 3);
  EXPECT_EQ(spec.TokensIn(16, 1000), 104);
}

// As many layers as Gemma 3's models have, five with a window before each without.
TEST(KvCacheSpec, GroupsAreFewAndHaveLittlePadding) {
  struct Case {
    int32_t layers, layers_per_group;
    size_t groups;
  };
  for (const Case& c : {Case{26, 4, 7}, Case{34, 5, 7}, Case{48, 8, 6}, Case{62, 11, 6}}) {
    std::vector<int32_t> windows(c.layers, 512);
    for (int32_t layer = 5; layer < c.layers; layer += 6) windows[layer] = 0;
    const KvCacheSpec spec = MakeKvCacheSpec({.kv_heads = 1, .head_dim = 256}, windows);
    EXPECT_EQ(spec.groups.size(), c.groups) << c.layers;
    EXPECT_EQ(spec.layers_per_group, c.layers_per_group) << c.layers;
    EXPECT_EQ(spec.NumLayers(), c.layers);
    EXPECT_EQ(spec.BytesPerToken(), uint64_t(c.layers) * 2 * 256 * 2);  // padding is not a token's
    for (int32_t layer = 0; layer < c.layers; ++layer) {
      const KvGroup& group = spec.groups[spec.GroupOf(layer)];
      EXPECT_EQ(group.window, windows[layer]);
      EXPECT_EQ(group.layers[spec.PlaceInGroup(layer)], layer);
      EXPECT_LE(group.layers.size(), size_t(c.layers_per_group));
    }
  }
}

}  // namespace
}  // namespace quire
