// Gated and plain activations.

#include "kernels/activation/activation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/activation/impl.h"
#include "kernels/gated_activation/impl.h"
#include "tests/kernels/cpu_problem.h"

namespace quire {
namespace {

using testing::ElementsAre;
using testing::FloatNear;

constexpr GateKind kGates[] = {GateKind::kSilu, GateKind::kGeluTanh, GateKind::kGeluErf, GateKind::kClampedSwiGlu};
constexpr ActivationKind kActivations[] = {ActivationKind::kRelu, ActivationKind::kSilu, ActivationKind::kGeluTanh,
                                           ActivationKind::kGeluErf, ActivationKind::kSoftCap};

float RoundingOf(DType dtype) {
  return dtype == DType::kBFloat16 ? 0x1p-7f : dtype == DType::kFloat16 ? 0x1p-10f : 0.0f;
}

class ActivationTest : public EachIsa {};
INSTANTIATE_TEST_SUITE_P(Isas, ActivationTest, testing::ValuesIn(SupportedCpuIsas()), IsaTestName);

TEST(GatedActivationRefTest, HandWorkedCases) {
  Matrix gate_up(DType::kFloat32, 1, 4), y(DType::kFloat32, 1, 2);
  gate_up.Fill({{1, -2, 2, 3}});  // g, g, u, u
  RefGatedActivation({gate_up.tensor(), y.tensor(), {GateKind::kSilu}});
  EXPECT_THAT(y.Row(0), ElementsAre(FloatNear(1.462117f, 1e-6f), FloatNear(-0.715217f, 1e-6f)));
  RefGatedActivation({gate_up.tensor(), y.tensor(), {GateKind::kGeluTanh}});
  EXPECT_THAT(y.Row(0), ElementsAre(FloatNear(1.682384f, 1e-6f), FloatNear(-0.136207f, 1e-6f)));
  RefGatedActivation({gate_up.tensor(), y.tensor(), {GateKind::kGeluErf}});
  EXPECT_THAT(y.Row(0), ElementsAre(FloatNear(1.682689f, 1e-6f), FloatNear(-0.136501f, 1e-6f)));
  gate_up.Fill({{9, 1, -8, 2.5}});
  RefGatedActivation({gate_up.tensor(), y.tensor(), {GateKind::kClampedSwiGlu, 1.702f, 7.0f}});
  EXPECT_THAT(y.Row(0), ElementsAre(FloatNear(-41.99972f, 1e-5f), FloatNear(2.960285f, 1e-6f)));
}

TEST(ActivationRefTest, HandWorkedCases) {
  Matrix x(DType::kFloat32, 1, 3), y(DType::kFloat32, 1, 3);
  x.Fill({{1, -2, 30}});
  RefActivation({x.tensor(), ActivationKind::kRelu, y.tensor()});
  EXPECT_THAT(y.Row(0), ElementsAre(1, 0, 30));
  RefActivation({x.tensor(), ActivationKind::kSilu, y.tensor()});
  EXPECT_THAT(y.Row(0), ElementsAre(FloatNear(0.731059f, 1e-6f), FloatNear(-0.238406f, 1e-6f), 30));
  RefActivation({x.tensor(), ActivationKind::kGeluTanh, y.tensor()});
  EXPECT_THAT(y.Row(0), ElementsAre(FloatNear(0.841192f, 1e-6f), FloatNear(-0.0454023f, 1e-6f), 30));
  RefActivation({x.tensor(), ActivationKind::kGeluErf, y.tensor()});
  EXPECT_THAT(y.Row(0), ElementsAre(FloatNear(0.841345f, 1e-6f), FloatNear(-0.0455003f, 1e-6f), 30));
  RefActivation({x.tensor(), ActivationKind::kSoftCap, y.tensor(), 30.0f});
  EXPECT_THAT(y.Row(0),
              ElementsAre(FloatNear(0.999630f, 1e-6f), FloatNear(-1.997042f, 1e-6f), FloatNear(22.847825f, 1e-5f)));
}

TEST_P(ActivationTest, GatesAgreeWithTheDefinition) {
  const std::unique_ptr<ThreadPool> pool = MakePool(3);
  for (GateKind kind : kGates) {
    for (DType dtype : kAllDTypes) {
      for (int64_t cols : {1, 15, 16, 33, 1500}) {
        Matrix gate_up(DType::kFloat32, 30, 2 * cols, 1), want(dtype, 30, cols), got(dtype, 30, cols, 3);
        gate_up.FillRandom(static_cast<uint32_t>(cols), 12.0f);
        RefGatedActivation({gate_up.tensor(), want.tensor(), {kind}});
        CpuGatedActivation({gate_up.tensor(), got.tensor(), {kind}}, kernels(), *pool);
        for (int64_t r = 0; r < 30; ++r) {
          for (int64_t i = 0; i < cols; ++i) {
            const float bound = (1e-6f + RoundingOf(dtype)) * std::fabs(want.At(r, i)) + 1e-5f;
            ASSERT_NEAR(got.At(r, i), want.At(r, i), bound)
                << static_cast<int>(kind) << " of " << gate_up.At(r, i) << ", " << gate_up.At(r, cols + i);
          }
          for (int64_t i = cols; i < cols + 3 && r < 29; ++i)
            ASSERT_TRUE(std::isnan(got.At(r, i))) << "wrote past a row";
        }
      }
    }
  }
}

TEST_P(ActivationTest, FunctionsAgreeWithTheDefinitionInPlaceToo) {
  const std::unique_ptr<ThreadPool> pool = MakePool(3);
  for (ActivationKind kind : kActivations) {
    for (float scale : {0.01f, 1.0f, 100.0f}) {
      Matrix x(DType::kFloat32, 50, 2001, 3), want(DType::kFloat32, 50, 2001), got(DType::kFloat16, 50, 2001);
      x.FillRandom(7, scale);
      RefActivation({x.tensor(), kind, want.tensor(), 30.0f});
      CpuActivation({x.tensor(), kind, got.tensor(), 30.0f}, kernels(), *pool);
      CpuActivation({x.tensor(), kind, x.tensor(), 30.0f}, kernels(), *pool);
      for (int64_t r = 0; r < 50; ++r) {
        for (int64_t i = 0; i < 2001; ++i) {
          const float bound = 1e-6f * std::fabs(want.At(r, i)) + (kind == ActivationKind::kSoftCap ? 6e-6f : 1e-6f);
          ASSERT_NEAR(x.At(r, i), want.At(r, i), bound) << static_cast<int>(kind);
          ASSERT_EQ(got.At(r, i), ToFloat(ToFloat16(x.At(r, i)))) << static_cast<int>(kind);
        }
      }
    }
  }
}

// What is NaN must reach the sampler, which looks for it.
TEST_P(ActivationTest, ExtremesAndNaN) {
  const std::unique_ptr<ThreadPool> pool = MakePool(1);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (ActivationKind kind : kActivations) {
    Matrix x(DType::kFloat32, 1, 5);
    x.Fill({{1e4f, -1e4f, nan, 0, -88}});
    CpuActivation({x.tensor(), kind, x.tensor(), 30.0f}, kernels(), *pool);
    const bool cap = kind == ActivationKind::kSoftCap;
    EXPECT_NEAR(x.At(0, 0), cap ? 30.0f : 1e4f, 1e-3f);
    EXPECT_NEAR(x.At(0, 1), cap ? -30.0f : 0.0f, 1e-3f);
    EXPECT_TRUE(std::isnan(x.At(0, 2))) << static_cast<int>(kind);
    EXPECT_EQ(x.At(0, 3), 0.0f);
  }
  for (GateKind kind : kGates) {
    Matrix gate_up(DType::kFloat32, 1, 4), y(DType::kFloat32, 1, 2);
    gate_up.Fill({{nan, 1, 1, nan}});
    CpuGatedActivation({gate_up.tensor(), y.tensor(), {kind}}, kernels(), *pool);
    EXPECT_TRUE(std::isnan(y.At(0, 0)) && std::isnan(y.At(0, 1))) << static_cast<int>(kind);
  }
}

}  // namespace
}  // namespace quire
