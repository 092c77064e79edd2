#include "kernels/head_linear/head_linear.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/backend_problem.h"

namespace quire {
namespace {

using testing::ElementsAre;

TEST(HeadLinearRefTest, HandWorkedCase) {
  const std::unique_ptr<Backend> backend = RefBackend();
  Matrix first(DType::kFloat32, 1, 2), second(DType::kFloat32, 1, 2);
  first.Fill({{1, 2}});
  second.Fill({{3, 4}});
  std::vector<LinearWeight> weights;
  for (const Matrix* m : {&first, &second}) weights.push_back(*backend->PackLinear({m->tensor()}, DType::kFloat32));
  Matrix x(DType::kFloat32, 1, 5), y(DType::kFloat32, 1, 4);
  x.Fill({{1, 1, 99, 1, 2}});  // heads 3 apart
  y.Fill({{0, 7, 0, 7}});
  backend->HeadLinear({.x = x.tensor(),
                       .x_head_stride = 3,
                       .weights = weights.data(),
                       .num_heads = 2,
                       .y = y.tensor(),
                       .y_head_stride = 2});
  EXPECT_THAT(y.Row(0), ElementsAre(3, 7, 11, 7));  // what lies between the heads is left
}

class HeadLinearTest : public EachIsa {};
INSTANTIATE_TEST_SUITE_P(Isas, HeadLinearTest, testing::ValuesIn(SupportedCpuIsas()), IsaTestName);

TEST_P(HeadLinearTest, AgreesWithTheDefinitionAndARowIsTheSameInAnyCompany) {
  constexpr int32_t kHeads = 5;
  constexpr int64_t kRows = 201, kN = 70, kK = 36, kXStride = 50, kYStride = 72;
  const WorkspaceShape shape{.latent_heads = kHeads, .head_linear_dim = kN};
  const std::unique_ptr<Backend> ref = RefBackend(), one = CpuBackend(GetParam(), 1, shape),
                                 three = CpuBackend(GetParam(), 3, shape);
  for (DType dtype : kAllDTypes) {
    Matrix x(DType::kFloat32, kRows, kHeads * kXStride, 1);
    x.FillRandom(3);
    Matrix want(DType::kFloat32, kRows, kHeads * kYStride), together(DType::kFloat32, kRows, kHeads * kYStride),
        alone(DType::kFloat32, kRows, kHeads * kYStride), rounded(DType::kBFloat16, kRows, kHeads * kYStride);
    for (Matrix* y : {&want, &together, &alone, &rounded}) y->FillRandom(8);
    const std::vector<LinearWeight> ref_weights = RandomWeights(*ref, kHeads, kN, kK, dtype, 1);
    const std::vector<LinearWeight> weights = RandomWeights(*one, kHeads, kN, kK, dtype, 1);
    ref->HeadLinear({x.tensor(), kXStride, ref_weights.data(), kHeads, want.tensor(), kYStride});
    three->HeadLinear({x.tensor(), kXStride, weights.data(), kHeads, together.tensor(), kYStride});
    three->HeadLinear({x.tensor(), kXStride, weights.data(), kHeads, rounded.tensor(), kYStride});
    for (int64_t r = 0; r < kRows; ++r) {
      one->HeadLinear({x.tensor().Rows(r, 1), kXStride, weights.data(), kHeads, alone.tensor().Rows(r, 1), kYStride});
    }
    EXPECT_LE(Difference(together, want), 2e-6f) << DTypeName(dtype);
    EXPECT_TRUE(SameBits(together, alone)) << DTypeName(dtype);
    EXPECT_EQ(rounded.At(7, 3), ToFloat(ToBFloat16(together.At(7, 3))));
  }
}

}  // namespace
}  // namespace quire
