#include "kvcache/kv_cache_spec.h"

#include <gtest/gtest.h>

namespace quire {
namespace {

// Llama-3-8B: 32 layers, 8 KV heads (of 32 query heads) of 128, bfloat16.
constexpr KvCacheSpec kLlama3 = {.num_layers = 32, .kv_heads = 8, .head_dim = 128, .block_size = 16};

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

}  // namespace
}  // namespace quire
