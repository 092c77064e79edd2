// Latent attention: the write of the latents, the attention over them, and that the absorbed form is multi-head
// attention.

#include "kernels/latent_attention/latent_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/latent_attention/impl.h"
#include "tests/kernels/backend_problem.h"

namespace quire {
namespace {

using testing::ElementsAre;
using testing::FloatNear;

// A paged cache of latents, full of NaN.
struct LatentCache {
  LatentCache(DType dtype, int32_t num_blocks, int32_t block_size, int32_t latent_dim, int32_t rope_dim)
      : data(dtype, 1, int64_t{num_blocks} * block_size * (latent_dim + rope_dim)), kv{data.tensor().data, dtype,
                                                                                       num_blocks,         block_size,
                                                                                       latent_dim,         rope_dim} {}
  Matrix data;
  LatentKv kv;
};

TEST(LatentKvWriteRefTest, HandWorkedCase) {
  const std::unique_ptr<Backend> backend = RefBackend();
  Matrix q(DType::kFloat32, 1, 8), kv(DType::kFloat32, 1, 4);
  q.Fill({{1, 2, 3, 4, 5, 6, 7, 8}});  // two heads: two without position, two to be turned
  kv.Fill({{3, 4, 5, 7}});
  const float weight[] = {1, 2}, cos[] = {1, 0}, sin[] = {0, 1};  // position 1: a quarter turn
  const int32_t positions[] = {1};
  const int64_t slots[] = {9};
  LatentCache cache(DType::kFloat32, 2, 8, 2, 2);
  backend->LatentKvWrite({.q_rope = {q.tensor().Cols(2, 6), 4},
                          .num_heads = 2,
                          .kv = kv.tensor(),
                          .norm_weight = weight,
                          .epsilon = 1e-30f,
                          .positions = positions,
                          .slots = slots,
                          .cos = cos,
                          .sin = sin,
                          .pairing = RopePairing::kInterleaved,
                          .cache = cache.kv});
  EXPECT_THAT(q.Row(0), ElementsAre(1, 2, -4, 3, 5, 6, -8, 7));
  EXPECT_NEAR(cache.data.At(0, 36), 0.848528f, 1e-6f);  // (block 1, slot 1): 9 * 4 elements on
  EXPECT_NEAR(cache.data.At(0, 37), 2.262742f, 1e-6f);
  EXPECT_EQ(cache.data.At(0, 38), -7);
  EXPECT_EQ(cache.data.At(0, 39), 5);
  int written = 0;
  for (int64_t i = 0; i < 64; ++i) written += !std::isnan(cache.data.At(0, i));
  EXPECT_EQ(written, 4);
}

TEST(LatentAttentionRefTest, HandWorkedCase) {
  const std::unique_ptr<Backend> backend = RefBackend();
  LatentCache cache(DType::kFloat32, 3, 8, 2, 2);
  const BlockId table[] = {2, 77};  // what follows the last used entry is not read
  const float slots[2][4] = {{0, 4, 1, 0}, {std::log(3.0f), 0, 7, 0}};
  for (int32_t t = 0; t < 2; ++t) {
    for (int32_t d = 0; d < 4; ++d) cache.data.Set(0, cache.kv.Index(2, t, d), slots[t][d]);
  }
  const AttentionChunk chunk{.block_table = table, .first_row = 0, .num_rows = 2, .first_position = 0};
  Matrix q_latent(DType::kFloat32, 2, 4), q_rope(DType::kFloat32, 2, 5), out(DType::kFloat32, 2, 4);
  q_latent.Fill({{1, 1, 1, 1}, {2, 0, 0, 0}});
  q_rope.Fill({{1, 1, 99, 1, 1}, {0, 2, 99, 2 * std::log(2.0f) / 6, 0}});  // two heads, 3 apart
  backend->LatentAttention({.q_latent = q_latent.tensor(),
                            .q_rope = {q_rope.tensor(), 3},
                            .chunks = &chunk,
                            .num_chunks = 1,
                            .num_heads = 2,
                            .scale = 0.5f,
                            .kv = cache.kv,
                            .out = out.tensor()});
  EXPECT_THAT(out.Row(0), ElementsAre(0, 4, 0, 4));
  // Head 0: weights 1/4, 3/4. Head 1: s = ln 2 / 6 * (1, 7), weights 1/3, 2/3.
  EXPECT_THAT(out.Row(1), ElementsAre(FloatNear(0.75f * std::log(3.0f), 1e-6f), FloatNear(1, 1e-6f),
                                      FloatNear(2.0f / 3 * std::log(3.0f), 1e-6f), FloatNear(4.0f / 3, 1e-6f)));
}

class LatentAttentionTest : public EachIsa {};
INSTANTIATE_TEST_SUITE_P(Isas, LatentAttentionTest, testing::ValuesIn(SupportedCpuIsas()), IsaTestName);

TEST_P(LatentAttentionTest, TheWriteAgreesWithTheDefinition) {
  const std::unique_ptr<ThreadPool> pool = MakePool(3);
  constexpr int32_t kRows = 70, kHeads = 3, kNope = 6, kBlocks = 10;
  for (DType dtype : kAllDTypes) {
    for (RopePairing pairing : {RopePairing::kHalves, RopePairing::kInterleaved}) {
      for (const auto& [latent_dim, rope_dim] : {std::pair{512, 64}, {34, 10}, {2, 2}}) {
        const int32_t stride = kNope + rope_dim;
        Matrix cos(DType::kFloat32, 50, rope_dim / 2), sin(DType::kFloat32, 50, rope_dim / 2);
        Matrix weight(DType::kFloat32, 1, latent_dim), kv(DType::kFloat32, kRows, latent_dim + rope_dim, 3);
        Matrix q(DType::kFloat32, kRows, kHeads * stride), q_want(DType::kFloat32, kRows, kHeads * stride);
        uint32_t seed = 1;
        for (Matrix* m : {&cos, &sin, &weight, &kv, &q}) m->FillRandom(++seed);
        q_want.FillRandom(seed);
        std::vector<int32_t> positions;
        std::vector<int64_t> slots;
        for (int32_t r = 0; r < kRows; ++r) {
          positions.push_back((r * 7) % 50);
          slots.push_back((r * 41) % (kBlocks * 8));
        }
        LatentCache want(dtype, kBlocks, 8, latent_dim, rope_dim), got(dtype, kBlocks, 8, latent_dim, rope_dim);
        LatentKvWriteArgs args = {.q_rope = {q_want.tensor().Cols(kNope, kHeads * stride - kNope), stride},
                                  .num_heads = kHeads,
                                  .kv = kv.tensor(),
                                  .norm_weight = weight.tensor().Row<float>(0),
                                  .epsilon = 1e-6f,
                                  .positions = positions.data(),
                                  .slots = slots.data(),
                                  .cos = cos.tensor().Row<float>(0),
                                  .sin = sin.tensor().Row<float>(0),
                                  .pairing = pairing,
                                  .cache = want.kv};
        RefLatentKvWrite(args);
        args.q_rope.q = q.tensor().Cols(kNope, kHeads * stride - kNope);
        args.cache = got.kv;
        CpuLatentKvWrite(args, kernels(), *pool);
        EXPECT_TRUE(SameBits(q, q_want));
        const float unit = dtype == DType::kBFloat16 ? 0x1p-7f : dtype == DType::kFloat16 ? 0x1p-10f : 0;
        for (int64_t i = 0; i < want.data.tensor().cols; ++i) {
          const float a = got.data.At(0, i), b = want.data.At(0, i);
          ASSERT_EQ(std::isnan(a), std::isnan(b)) << i;
          if (std::isnan(b)) continue;
          ASSERT_NEAR(a, b, (unit + 4e-6f) * std::fabs(b)) << DTypeName(dtype) << " " << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace quire
