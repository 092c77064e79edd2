// Embedding, RMSNorm, SwiGLU, and RoPE with the write of K and V: hand-worked cases for the definitions, agreement for
// everything else.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cpu/host_memory.h"
#include "kernels/embedding/impl.h"
#include "kernels/gated_activation/impl.h"
#include "kernels/linear/impl.h"
#include "kernels/rms_norm/impl.h"
#include "kernels/rope/impl.h"
#include "tests/kernels/cpu_problem.h"

namespace quire {
namespace {

using testing::ElementsAre;
using testing::FloatNear;

// Equal but for the rounding to `dtype`, where float32 results may differ by `relative`.
void ExpectClose(float got, float want, DType dtype, float relative, const std::string& label) {
  const float unit = dtype == DType::kBFloat16 ? 0x1p-7f : dtype == DType::kFloat16 ? 0x1p-10f : 0.0f;
  ASSERT_LE(std::fabs(got - want), (relative + unit) * std::fabs(want) + 1e-7f)
      << label << ": " << got << " is not " << want;
}

class ElementwiseTest : public EachIsa {};
INSTANTIATE_TEST_SUITE_P(Isas, ElementwiseTest, testing::ValuesIn(SupportedCpuIsas()), IsaTestName);

TEST(EmbeddingRefTest, HandWorkedCase) {
  LinearWeight table{.n = 2, .k = 2, .dtype = DType::kFloat32, .data = *AllocateHostMemory(16)};
  const float values[] = {1, 2, 3, 4};
  std::memcpy(table.data.data(), values, sizeof values);
  Matrix x(DType::kFloat32, 3, 2);
  const uint32_t ids[] = {1, 0, 1};
  RefEmbedding({ids, &table, x.tensor()});
  EXPECT_THAT(x.Row(0), ElementsAre(3, 4));
  EXPECT_THAT(x.Row(1), ElementsAre(1, 2));
  EXPECT_THAT(x.Row(2), ElementsAre(3, 4));
}

TEST(EmbeddingCpuTest, ReadsRowsOutOfThePackedWeight) {
  const std::unique_ptr<ThreadPool> pool = MakePool(3);
  for (DType dtype : kAllDTypes) {
    for (int64_t k : {1, 7, 64, 901}) {
      Matrix rows(dtype, 150, k);
      rows.FillRandom(5);
      LinearWeight table{
          150, k, dtype,
          *AllocateHostMemory(static_cast<size_t>(NumPanels(150) * PanelElements(k, dtype)) * DTypeBytes(dtype))};
      CpuPackLinear({SourceOf(rows.tensor())}, dtype, *pool, table.data.data());
      std::vector<uint32_t> ids = {149, 0, 63, 64, 127, 128, 5, 5};
      for (uint32_t id = 0; id < 150; ++id) ids.push_back(id);
      Matrix x(DType::kFloat32, static_cast<int64_t>(ids.size()), k, 2);
      CpuEmbedding({ids.data(), &table, x.tensor()}, *pool);
      for (size_t r = 0; r < ids.size(); ++r)
        ASSERT_EQ(x.Row(static_cast<int64_t>(r)), rows.Row(ids[r])) << DTypeName(dtype) << " k " << k;
    }
  }
}

TEST(RmsNormRefTest, HandWorkedCase) {
  Matrix x(DType::kFloat32, 2, 2), y(DType::kFloat32, 2, 2);
  x.Fill({{3, 4}, {0, 0}});
  const float weight[] = {1, 2};
  RefRmsNorm({x.tensor(), weight, 1e-30f, nullptr, y.tensor()});
  EXPECT_THAT(y.Row(0), ElementsAre(FloatNear(0.848528f, 1e-6f), FloatNear(2.262742f, 1e-6f)));
  EXPECT_THAT(y.Row(1), ElementsAre(0, 0));  // epsilon keeps a row of zeroes finite
}

TEST(RmsNormRefTest, EpsilonIsInsideTheRootAndRowsAreGathered) {
  Matrix x(DType::kFloat32, 2, 1), y(DType::kFloat32, 3, 1);
  x.Fill({{1}, {2}});
  const float weight[] = {1};
  const int32_t rows[] = {1, 1, 0};
  RefRmsNorm({x.tensor(), weight, 5.0f, rows, y.tensor()});
  EXPECT_NEAR(y.At(0, 0), 2.0f / 3.0f, 1e-6f);  // 2 / sqrt(4 + 5)
  EXPECT_NEAR(y.At(1, 0), 2.0f / 3.0f, 1e-6f);
  EXPECT_NEAR(y.At(2, 0), 0.40824829f, 1e-6f);  // 1 / sqrt(1 + 5)
}

TEST_P(ElementwiseTest, RmsNormAgreesWithTheDefinition) {
  const std::unique_ptr<ThreadPool> pool = MakePool(3);
  for (DType dtype : kAllDTypes) {
    for (int64_t cols : {1, 2, 15, 16, 17, 63, 64, 65, 200, 2048, 2051}) {
      Matrix x(DType::kFloat32, 70, cols, 3), weight(DType::kFloat32, 1, cols), want(dtype, 71, cols),
          got(dtype, 71, cols, 7);
      x.FillRandom(static_cast<uint32_t>(cols), 3.0f);
      weight.FillRandom(4);
      std::vector<int32_t> rows;
      for (int32_t r = 0; r < 71; ++r) rows.push_back((r * 37) % 70);
      RefRmsNorm({x.tensor(), weight.tensor().Row<float>(0), 1e-5f, rows.data(), want.tensor()});
      CpuRmsNorm({x.tensor(), weight.tensor().Row<float>(0), 1e-5f, rows.data(), got.tensor()}, kernels(), *pool);
      for (int64_t r = 0; r < 71; ++r) {
        for (int64_t i = 0; i < cols; ++i)
          ExpectClose(got.At(r, i), want.At(r, i), dtype, 4e-6f, "cols " + std::to_string(cols));
        for (int64_t i = cols; i < cols + 7 && r < 70; ++i) ASSERT_TRUE(std::isnan(got.At(r, i))) << "wrote past a row";
      }
    }
  }
}

TEST_P(ElementwiseTest, RmsNormOfARowIsTheSameInAnyCompany) {
  const std::unique_ptr<ThreadPool> one = MakePool(1), five = MakePool(5);
  Matrix x(DType::kFloat32, 40, 3001), weight(DType::kFloat32, 1, 3001), alone(DType::kFloat32, 40, 3001),
      together(DType::kFloat32, 40, 3001);
  x.FillRandom(1);
  weight.FillRandom(2);
  for (int64_t r = 0; r < 40; ++r) {
    CpuRmsNorm({x.tensor().Rows(r, 1), weight.tensor().Row<float>(0), 1e-5f, nullptr, alone.tensor().Rows(r, 1)},
               kernels(), *one);
  }
  CpuRmsNorm({x.tensor(), weight.tensor().Row<float>(0), 1e-5f, nullptr, together.tensor()}, kernels(), *five);
  EXPECT_TRUE(SameBits(alone, together));
}

TEST(SwiGluRefTest, HandWorkedCase) {
  Matrix gate_up(DType::kFloat32, 2, 4), y(DType::kFloat32, 2, 2);
  gate_up.Fill({{0, 1, 5, 2}, {-1, 20, 1, 3}});  // g, g, u, u
  RefGatedActivation({gate_up.tensor(), y.tensor()});
  EXPECT_THAT(y.Row(0), ElementsAre(0, FloatNear(1.462117f, 1e-6f)));
  EXPECT_THAT(y.Row(1), ElementsAre(FloatNear(-0.268941f, 1e-6f), FloatNear(60.0f, 1e-5f)));
}

TEST_P(ElementwiseTest, SwiGluAgreesWithTheDefinition) {
  const std::unique_ptr<ThreadPool> pool = MakePool(3);
  for (DType dtype : kAllDTypes) {
    for (int64_t cols : {1, 15, 16, 33, 200, 1500}) {
      Matrix gate_up(DType::kFloat32, 30, 2 * cols, 1), want(dtype, 30, cols), got(dtype, 30, cols, 3);
      gate_up.FillRandom(static_cast<uint32_t>(cols), 30.0f);
      RefGatedActivation({gate_up.tensor(), want.tensor()});
      CpuGatedActivation({gate_up.tensor(), got.tensor()}, kernels(), *pool);
      for (int64_t r = 0; r < 30; ++r) {
        for (int64_t i = 0; i < cols; ++i)
          ExpectClose(got.At(r, i), want.At(r, i), dtype, 1e-6f, "cols " + std::to_string(cols));
        for (int64_t i = cols; i < cols + 3 && r < 29; ++i) ASSERT_TRUE(std::isnan(got.At(r, i))) << "wrote past a row";
      }
    }
  }
}

TEST_P(ElementwiseTest, SwiGluOfExtremeGates) {
  const std::unique_ptr<ThreadPool> pool = MakePool(1);
  Matrix gate_up(DType::kFloat32, 1, 10), y(DType::kFloat32, 1, 5);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  gate_up.Fill({{1000, -1000, -88, nan, 1e30f, 1, 1, 1, 1, 1}});
  CpuGatedActivation({gate_up.tensor(), y.tensor()}, kernels(), *pool);
  EXPECT_EQ(y.At(0, 0), 1000.0f);
  EXPECT_NEAR(y.At(0, 1), 0.0f, 1e-30f);
  EXPECT_NEAR(y.At(0, 2), 0.0f, 1e-30f);
  EXPECT_TRUE(std::isnan(y.At(0, 3)));
  EXPECT_EQ(y.At(0, 4), 1e30f);
}

// A paged cache full of NaN.
struct Cache {
  Cache(DType dtype, int32_t num_blocks, int32_t block_size, int32_t kv_heads, int32_t head_dim)
      : k(dtype, 1, int64_t{num_blocks} * block_size * kv_heads * head_dim), v(dtype, 1, k.tensor().cols) {
    kv = {k.tensor().data, v.tensor().data, dtype, num_blocks, block_size, kv_heads, head_dim};
  }
  Matrix k, v;
  PagedKv kv;
};

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

TEST_P(ElementwiseTest, RopeKvWriteHasTheBitsOfTheDefinition) {
  const std::unique_ptr<ThreadPool> pool = MakePool(3);
  for (DType dtype : kAllDTypes) {
    for (int32_t head_dim : {2, 6, 10, 64, 128, 258}) {
      constexpr int32_t kQHeads = 3, kKvHeads = 2, kBlocks = 12, kBlockSize = 8, kPositions = 90, kRows = 71;
      const int32_t half = head_dim / 2;
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
      RefRopeKvWrite({q_want.tensor(), k.tensor(), v.tensor(), positions.data(), slots.data(),
                      cos.tensor().Row<float>(0), sin.tensor().Row<float>(0), want.kv});
      CpuRopeKvWrite({q.tensor(), k.tensor(), v.tensor(), positions.data(), slots.data(), cos.tensor().Row<float>(0),
                      sin.tensor().Row<float>(0), got.kv},
                     kernels(), *pool);
      EXPECT_TRUE(SameBits(q, q_want)) << DTypeName(dtype) << " head_dim " << head_dim;
      EXPECT_TRUE(SameBits(got.k, want.k)) << DTypeName(dtype) << " head_dim " << head_dim;
      EXPECT_TRUE(SameBits(got.v, want.v)) << DTypeName(dtype) << " head_dim " << head_dim;
    }
  }
}

}  // namespace
}  // namespace quire
