// Embedding, RMSNorm and SwiGLU: hand-worked cases for the definitions, agreement for everything else.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cpu/host_memory.h"
#include "kernels/embedding/impl.h"
#include "kernels/gated_activation/impl.h"
#include "kernels/gather_rows/impl.h"
#include "kernels/linear/impl.h"
#include "kernels/rms_norm/impl.h"
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

TEST(EmbeddingTest, ScalesAndAdds) {
  const std::unique_ptr<ThreadPool> pool = MakePool(1);
  Matrix rows(DType::kFloat32, 2, 2), x(DType::kFloat32, 1, 2), cpu_x(DType::kFloat32, 1, 2);
  rows.Fill({{1, 2}, {3, 4}});
  LinearWeight table{.n = 2, .k = 2, .dtype = DType::kFloat32, .data = *AllocateHostMemory(16)};
  RefPackLinear({SourceOf(rows.tensor())}, DType::kFloat32, table.data.data());
  LinearWeight packed{2, 2, DType::kFloat32, *AllocateHostMemory(PanelElements(2, DType::kFloat32) * 4)};
  CpuPackLinear({SourceOf(rows.tensor())}, DType::kFloat32, *pool, packed.data.data());
  for (const uint32_t id : {1, 0}) {
    const bool accumulate = id == 0;
    RefEmbedding({&id, &table, x.tensor(), 10.0f, accumulate});
    CpuEmbedding({&id, &packed, cpu_x.tensor(), 10.0f, accumulate}, *pool);
  }
  EXPECT_THAT(x.Row(0), ElementsAre(40, 60));
  EXPECT_TRUE(SameBits(x, cpu_x));
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

TEST(GatherRowsTest, HandWorkedCase) {
  for (DType dtype : kAllDTypes) {
    Matrix x(dtype, 5, 2, 1);
    x.Fill({{1, 2}, {3, 4}, {5, 6}, {7, 8}, {9, 10}});
    const int32_t rows[] = {0, 2, 3};
    HostGatherRows({x.tensor(), rows, 3});
    EXPECT_EQ(x.Row(0), (std::vector<float>{1, 2}));
    EXPECT_EQ(x.Row(1), (std::vector<float>{5, 6}));
    EXPECT_EQ(x.Row(2), (std::vector<float>{7, 8}));
    EXPECT_EQ(x.Row(4), (std::vector<float>{9, 10}));
  }
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

}  // namespace
}  // namespace quire
