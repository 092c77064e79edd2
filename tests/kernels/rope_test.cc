// RoPE and the write of K and V.

#include "kernels/rope/rope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/rope/impl.h"
#include "tests/kernels/cpu_problem.h"

namespace quire {
namespace {

using testing::ElementsAre;

// A paged cache full of NaN.
struct Cache {
  Cache(DType dtype, int32_t num_blocks, int32_t block_size, int32_t kv_heads, int32_t head_dim)
      : k(dtype, 1, int64_t{num_blocks} * block_size * kv_heads * head_dim), v(dtype, 1, k.tensor().cols) {
    kv = {k.tensor().data, v.tensor().data, dtype, num_blocks, block_size, kv_heads, head_dim};
  }
  Matrix k, v;
  PagedKv kv;
};

class RopeTest : public EachIsa {};
INSTANTIATE_TEST_SUITE_P(Isas, RopeTest, testing::ValuesIn(SupportedCpuIsas()), IsaTestName);

TEST(RopeRefTest, HandWorkedCase) {
  // head_dim 2, inv_freq [pi / 2]: position 1 turns (1, 0) into (0, 1); position 2 turns by pi.
  const float cos[] = {1, 0, -1}, sin[] = {0, 1, 0};
  Matrix q(DType::kFloat32, 2, 4), k(DType::kFloat32, 2, 2), v(DType::kFloat32, 2, 2);
  q.Fill({{1, 0, 2, 3}, {1, 0, 0, 1}});  // two heads
  k.Fill({{5, 7}, {5, 7}});
  v.Fill({{8, 9}, {10, 11}});
  Cache cache(DType::kFloat32, 2, 8, 1, 2);
  const int32_t positions[] = {1, 2};
  const int64_t slots[] = {11, 0};  // block 1 slot 3, block 0 slot 0
  RefRopeKvWrite({q.tensor(), k.tensor(), v.tensor(), positions, slots, cos, sin, cache.kv});
  EXPECT_THAT(q.Row(0), ElementsAre(0, 1, -3, 2));
  EXPECT_THAT(q.Row(1), ElementsAre(-1, 0, 0, -1));
  EXPECT_THAT(k.Row(0), ElementsAre(5, 7));  // unchanged
  // K: [block][kv_head][head_dim / 2][block_size][2]: with one pair of dims a slot's two follow each other.
  EXPECT_EQ(cache.k.At(0, 16 + 3 * 2), -7);
  EXPECT_EQ(cache.k.At(0, 16 + 3 * 2 + 1), 5);
  EXPECT_EQ(cache.k.At(0, 0), -5);
  EXPECT_EQ(cache.k.At(0, 1), -7);
  EXPECT_EQ(cache.v.At(0, 16 + 3 * 2), 8);
  EXPECT_EQ(cache.v.At(0, 16 + 3 * 2 + 1), 9);
  EXPECT_EQ(cache.v.At(0, 0), 10);
  int written = 0;
  for (int64_t i = 0; i < 32; ++i) written += !std::isnan(cache.k.At(0, i)) + !std::isnan(cache.v.At(0, i));
  EXPECT_EQ(written, 8);
}

TEST(RopeRefTest, PairingsAndPartialRotation) {
  // A quarter turn of the first pair, a half turn of the second: (a, b) becomes (-b, a) and (-a, -b).
  const float cos[] = {0, -1}, sin[] = {1, 0};
  const int32_t positions[] = {0};
  const int64_t slots[] = {0};
  const auto turned = [&](RopePairing pairing, int32_t rotary_dim) {
    Matrix q(DType::kFloat32, 1, 6), k(DType::kFloat32, 1, 6), v(DType::kFloat32, 1, 6);
    q.Fill({{1, 2, 3, 4, 5, 6}});
    k.Fill({{1, 2, 3, 4, 5, 6}});
    v.FillRandom(1);
    Cache cache(DType::kFloat32, 1, 8, 1, 6);
    RefRopeKvWrite({q.tensor(), k.tensor(), v.tensor(), positions, slots, cos, sin, cache.kv, pairing, rotary_dim});
    for (int32_t d = 0; d < 6; ++d) EXPECT_EQ(cache.k.At(0, cache.kv.KIndex(0, 0, 0, d)), q.At(0, d));
    return q.Row(0);
  };
  EXPECT_THAT(turned(RopePairing::kHalves, 4), ElementsAre(-3, -2, 1, -4, 5, 6));
  EXPECT_THAT(turned(RopePairing::kInterleaved, 4), ElementsAre(-2, 1, -3, -4, 5, 6));
  EXPECT_THAT(turned(RopePairing::kHalves, 2), ElementsAre(-2, 1, 3, 4, 5, 6));
  EXPECT_THAT(turned(RopePairing::kNone, 0), ElementsAre(1, 2, 3, 4, 5, 6));
}

TEST(RopeRefTest, WithoutRotationNeitherTablesNorPositionsAreRead) {
  Matrix q(DType::kFloat32, 1, 2), k(DType::kFloat32, 1, 2), v(DType::kFloat32, 1, 2);
  k.Fill({{5, 7}});
  v.Fill({{8, 9}});
  Cache cache(DType::kFloat32, 1, 8, 1, 2);
  const int64_t slots[] = {3};
  RefRopeKvWrite({q.tensor(), k.tensor(), v.tensor(), nullptr, slots, nullptr, nullptr, cache.kv, RopePairing::kNone});
  EXPECT_EQ(cache.k.At(0, 6), 5);
  EXPECT_EQ(cache.v.At(0, 7), 9);
}

TEST(RopeRefTest, DimsOfKLieInPairsAcrossSlots) {
  const float cos[] = {1, 1}, sin[] = {0, 0};  // no turn
  Matrix q(DType::kFloat32, 1, 8), k(DType::kFloat32, 1, 8), v(DType::kFloat32, 1, 8);
  q.FillRandom(1);
  k.Fill({{0, 1, 2, 3, 10, 11, 12, 13}});  // two kv heads of four dims
  v.Fill({{0, 1, 2, 3, 10, 11, 12, 13}});
  Cache cache(DType::kBFloat16, 1, 8, 2, 4);
  const int32_t positions[] = {0};
  const int64_t slots[] = {5};
  RefRopeKvWrite({q.tensor(), k.tensor(), v.tensor(), positions, slots, cos, sin, cache.kv});
  EXPECT_EQ(cache.k.At(0, 5 * 2), 0);  // head 0, pair 0, slot 5
  EXPECT_EQ(cache.k.At(0, 5 * 2 + 1), 1);
  EXPECT_EQ(cache.k.At(0, (8 + 5) * 2), 2);  // pair 1
  EXPECT_EQ(cache.k.At(0, (8 + 5) * 2 + 1), 3);
  EXPECT_EQ(cache.k.At(0, 32 + 5 * 2), 10);  // head 1
  EXPECT_EQ(cache.v.At(0, 5 * 4 + 2), 2);    // V: [block][kv_head][slot][dim]
  EXPECT_EQ(cache.v.At(0, 32 + 5 * 4 + 3), 13);
}

struct Variant {
  int32_t head_dim;
  RopePairing pairing;
  int32_t rotary_dim;
};

TEST_P(RopeTest, RopeKvWriteHasTheBitsOfTheDefinition) {
  const std::unique_ptr<ThreadPool> pool = MakePool(3);
  std::vector<Variant> variants;
  for (int32_t head_dim : {2, 6, 10, 64, 80, 128, 258}) {
    variants.push_back({head_dim, RopePairing::kHalves, 0});
    variants.push_back({head_dim, RopePairing::kInterleaved, 0});
    variants.push_back({head_dim, RopePairing::kNone, 0});
    if (head_dim > 4) variants.push_back({head_dim, RopePairing::kHalves, head_dim / 4 * 2});
    if (head_dim > 4) variants.push_back({head_dim, RopePairing::kInterleaved, head_dim / 4 * 2});
  }
  for (DType dtype : kAllDTypes) {
    for (const auto& [head_dim, pairing, rotary_dim] : variants) {
      constexpr int32_t kQHeads = 3, kKvHeads = 2, kBlocks = 12, kBlockSize = 8, kPositions = 90, kRows = 71;
      const int32_t half = (rotary_dim > 0 ? rotary_dim : head_dim) / 2;
      Matrix cos(DType::kFloat32, kPositions, half), sin(DType::kFloat32, kPositions, half);
      cos.FillRandom(1);
      sin.FillRandom(2);
      Matrix q(DType::kFloat32, kRows, kQHeads * head_dim, 4), q_want(DType::kFloat32, kRows, kQHeads * head_dim, 4);
      Matrix k(DType::kFloat32, kRows, kKvHeads * head_dim, 1), v(DType::kFloat32, kRows, kKvHeads * head_dim, 2);
      q.FillRandom(3);
      q_want.FillRandom(3);
      k.FillRandom(4);
      v.FillRandom(5);
      Cache got(dtype, kBlocks, kBlockSize, kKvHeads, head_dim), want(dtype, kBlocks, kBlockSize, kKvHeads, head_dim);
      std::vector<int32_t> positions;
      std::vector<int64_t> slots;
      for (int32_t r = 0; r < kRows; ++r) {
        positions.push_back((r * 7) % kPositions);
        slots.push_back((r * 41) % (kBlocks * kBlockSize));  // 41 and 96 have no common factor: each is another
      }
      RopeKvWriteArgs args = {q_want.tensor(),
                              k.tensor(),
                              v.tensor(),
                              positions.data(),
                              slots.data(),
                              cos.tensor().Row<float>(0),
                              sin.tensor().Row<float>(0),
                              want.kv,
                              pairing,
                              rotary_dim};
      RefRopeKvWrite(args);
      args.q = q.tensor();
      args.kv = got.kv;
      CpuRopeKvWrite(args, kernels(), *pool);
      const std::string label = std::string(DTypeName(dtype)) + " head_dim " + std::to_string(head_dim) + " pairing " +
                                std::to_string(static_cast<int>(pairing)) + " rotary_dim " + std::to_string(rotary_dim);
      EXPECT_TRUE(SameBits(q, q_want)) << label;
      EXPECT_TRUE(SameBits(got.k, want.k)) << label;
      EXPECT_TRUE(SameBits(got.v, want.v)) << label;
    }
  }
}

}  // namespace
}  // namespace quire
