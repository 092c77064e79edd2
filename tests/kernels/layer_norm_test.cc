// LayerNorm, and RMSNorm over heads and into the residual stream.

#include "kernels/layer_norm/layer_norm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/layer_norm/impl.h"
#include "kernels/rms_norm/impl.h"
#include "tests/kernels/cpu_problem.h"

namespace quire {
namespace {

using testing::ElementsAre;
using testing::FloatNear;

class LayerNormTest : public EachIsa {};
INSTANTIATE_TEST_SUITE_P(Isas, LayerNormTest, testing::ValuesIn(SupportedCpuIsas()), IsaTestName);

TEST(LayerNormRefTest, HandWorkedCase) {
  Matrix x(DType::kFloat32, 2, 2), y(DType::kFloat32, 2, 2);
  x.Fill({{1, 3}, {5, 5}});
  const float weight[] = {1, 2}, bias[] = {0, 1};
  RefLayerNorm({x.tensor(), weight, bias, 1e-30f, nullptr, y.tensor()});
  EXPECT_THAT(y.Row(0), ElementsAre(-1, 3));
  EXPECT_THAT(y.Row(1), ElementsAre(0, 1));  // epsilon keeps a constant row finite
  const int32_t rows[] = {1, 0};
  RefLayerNorm({x.tensor(), nullptr, nullptr, 3.0f, rows, y.tensor()});
  EXPECT_THAT(y.Row(0), ElementsAre(0, 0));
  EXPECT_THAT(y.Row(1), ElementsAre(-0.5, 0.5));  // epsilon is inside the root: 1 / sqrt(1 + 3)
}

TEST_P(LayerNormTest, AgreesWithTheDefinition) {
  const std::unique_ptr<ThreadPool> pool = MakePool(3);
  for (DType dtype : kAllDTypes) {
    for (int64_t cols : {1, 2, 15, 16, 17, 64, 65, 200, 2051}) {
      Matrix x(DType::kFloat32, 40, cols, 3), weight(DType::kFloat32, 1, cols), bias(DType::kFloat32, 1, cols);
      Matrix want(DType::kFloat32, 40, cols), got(dtype, 40, cols, 7);
      x.FillRandom(static_cast<uint32_t>(cols), 3.0f);
      weight.FillRandom(4);
      bias.FillRandom(5);
      const float* biases = cols % 2 == 0 ? nullptr : bias.tensor().Row<float>(0);
      RefLayerNorm({x.tensor(), weight.tensor().Row<float>(0), biases, 1e-5f, nullptr, want.tensor()});
      CpuLayerNorm({x.tensor(), weight.tensor().Row<float>(0), biases, 1e-5f, nullptr, got.tensor()}, kernels(), *pool);
      const float unit = dtype == DType::kBFloat16 ? 0x1p-8f : dtype == DType::kFloat16 ? 0x1p-11f : 0.0f;
      for (int64_t r = 0; r < 40; ++r) {
        for (int64_t i = 0; i < cols; ++i)
          ASSERT_NEAR(got.At(r, i), want.At(r, i), unit * std::fabs(want.At(r, i)) + 4e-6f) << "cols " << cols;
        for (int64_t i = cols; i < cols + 7 && r < 39; ++i) ASSERT_TRUE(std::isnan(got.At(r, i))) << "wrote past a row";
      }
    }
  }
}

TEST_P(LayerNormTest, ARowIsTheSameInAnyCompanyAndInPlace) {
  const std::unique_ptr<ThreadPool> one = MakePool(1), five = MakePool(5);
  Matrix x(DType::kFloat32, 40, 3001), alone(DType::kFloat32, 40, 3001);
  x.FillRandom(1);
  for (int64_t r = 0; r < 40; ++r) {
    CpuLayerNorm({x.tensor().Rows(r, 1), nullptr, nullptr, 1e-5f, nullptr, alone.tensor().Rows(r, 1)}, kernels(), *one);
  }
  CpuLayerNorm({x.tensor(), nullptr, nullptr, 1e-5f, nullptr, x.tensor()}, kernels(), *five);
  EXPECT_TRUE(SameBits(alone, x));
}

TEST(RmsNormRefTest, HeadsAreNormedByThemselvesWithOneWeight) {
  Matrix x(DType::kFloat32, 1, 4);
  x.Fill({{3, 4, 6, 8}});
  const float weight[] = {1, 2};
  RefRmsNorm({.x = x.tensor(), .weight = weight, .epsilon = 1e-30f, .rows = nullptr, .y = x.tensor(), .heads = 2});
  EXPECT_THAT(x.Row(0), ElementsAre(FloatNear(0.848528f, 1e-6f), FloatNear(2.262742f, 1e-6f),
                                    FloatNear(0.848528f, 1e-6f), FloatNear(2.262742f, 1e-6f)));
}

TEST(RmsNormRefTest, AccumulateAddsToY) {
  Matrix x(DType::kFloat32, 1, 2), y(DType::kFloat32, 1, 2);
  x.Fill({{2, 2}});
  y.Fill({{10, 20}});
  const float weight[] = {1, 3};
  RefRmsNorm({.x = x.tensor(),
              .weight = weight,
              .epsilon = 1e-30f,
              .rows = nullptr,
              .y = y.tensor(),
              .heads = 1,
              .accumulate = true});
  EXPECT_THAT(y.Row(0), ElementsAre(11, 23));
}

TEST_P(LayerNormTest, RmsNormOfHeadsAndSumsAgreesWithTheDefinition) {
  const std::unique_ptr<ThreadPool> pool = MakePool(3);
  for (int64_t hidden : {6, 64, 80, 128}) {
    constexpr int64_t kRows = 50, kHeads = 5;
    // In place, in some of the columns: what the QK norm does to the queries in a fused row.
    Matrix want(DType::kFloat32, kRows, (kHeads + 2) * hidden), got(DType::kFloat32, kRows, (kHeads + 2) * hidden);
    Matrix weight(DType::kFloat32, 1, hidden);
    want.FillRandom(3);
    got.FillRandom(3);
    weight.FillRandom(2);
    const Tensor want_q = want.tensor().Cols(hidden, kHeads * hidden), q = got.tensor().Cols(hidden, kHeads * hidden);
    const float* weights = weight.tensor().Row<float>(0);
    RefRmsNorm({.x = want_q, .weight = weights, .epsilon = 1e-6f, .rows = nullptr, .y = want_q, .heads = kHeads});
    CpuRmsNorm({.x = q, .weight = weights, .epsilon = 1e-6f, .rows = nullptr, .y = q, .heads = kHeads}, kernels(),
               *pool);
    Matrix sum_want(DType::kFloat32, kRows, hidden), sum(DType::kFloat32, kRows, hidden);
    sum_want.FillRandom(9);
    sum.FillRandom(9);
    const Tensor part_want = want.tensor().Cols(0, hidden), part = got.tensor().Cols(0, hidden);
    RefRmsNorm({part_want, weights, 1e-6f, nullptr, sum_want.tensor(), 1, true});
    CpuRmsNorm({part, weights, 1e-6f, nullptr, sum.tensor(), 1, true}, kernels(), *pool);
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t i = 0; i < want.tensor().cols; ++i) ASSERT_NEAR(got.At(r, i), want.At(r, i), 4e-6f);
      for (int64_t i = 0; i < hidden; ++i) ASSERT_NEAR(sum.At(r, i), sum_want.At(r, i), 4e-6f);
    }
  }
}

}  // namespace
}  // namespace quire
