// Routing and the mixture of experts.

#include "kernels/moe/moe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "kernels/moe/impl.h"
#include "tests/kernels/backend_problem.h"

namespace quire {
namespace {

using testing::ElementsAre;
using testing::FloatNear;
using testing::Pointwise;

struct Routed {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

// Routes one row; `args` without its tensors.
Routed RouteRow(const std::vector<float>& logits, RouteArgs args) {
  Routed routed{std::vector<int32_t>(args.top_k, -1), std::vector<float>(args.top_k)};
  std::vector<float> row = logits;
  args.logits = Tensor::Contiguous(row.data(), DType::kFloat32, 1, static_cast<int64_t>(row.size()));
  args.experts = routed.experts.data();
  args.weights = routed.weights.data();
  RefBackend()->Route(args);
  return routed;
}

testing::Matcher<const std::vector<float>&> Near(const std::vector<float>& values) {
  return Pointwise(FloatNear(1e-6f), values);
}

TEST(RouteTest, SoftmaxWithAndWithoutNormalising) {
  const std::vector<float> logits = {std::log(1.0f), std::log(3.0f), std::log(4.0f)};
  Routed plain = RouteRow(logits, {.top_k = 2});
  EXPECT_THAT(plain.experts, ElementsAre(2, 1));
  EXPECT_THAT(plain.weights, Near({0.5f, 0.375f}));
  EXPECT_THAT(RouteRow(logits, {.top_k = 2, .normalize = true}).weights, Near({4 / 7.0f, 3 / 7.0f}));
  EXPECT_THAT(RouteRow(logits, {.top_k = 2, .scale = 16}).weights, Near({8, 6}));
}

TEST(RouteTest, SigmoidWhoseBiasPicksButDoesNotWeigh) {
  const std::vector<float> logits = {0, std::log(3.0f), -std::log(3.0f), 0};  // scores 1/2, 3/4, 1/4, 1/2
  const float bias[] = {0, -0.7f, 0.5f, 0};                                   // choices 0.5, 0.05, 0.75, 0.5
  const Routed routed =
      RouteRow(logits, {.top_k = 2, .score = RouteScore::kSigmoid, .normalize = true, .scale = 3, .bias = bias});
  EXPECT_THAT(routed.experts, ElementsAre(2, 0));  // of equal ones the lower id
  EXPECT_THAT(routed.weights, Near({1, 2}));       // 3 * (1/4, 1/2) / (3/4)
}

TEST(RouteTest, GroupsByTheirBestOrTheirTwoBest) {
  // Four groups of two; the best single expert is in group 0, the best pair in group 3.
  const std::vector<float> logits = {3, -5, -1, -2, 2.5, -6, 2.3, 2.2};
  RouteArgs args = {.top_k = 2, .score = RouteScore::kSigmoid, .num_groups = 4, .top_groups = 1};
  EXPECT_THAT(RouteRow(logits, args).experts, ElementsAre(0, 1));
  args.group_score = RouteGroupScore::kTopTwoSum;
  EXPECT_THAT(RouteRow(logits, args).experts, ElementsAre(6, 7));
  args.top_groups = 2;  // groups 3 and 0: 0.953 + 0.007 against 0.924 + 0.002 of group 2
  EXPECT_THAT(RouteRow(logits, args).experts, ElementsAre(0, 6));
  args.group_score = RouteGroupScore::kMax;  // groups 0 and 2
  EXPECT_THAT(RouteRow(logits, args).experts, ElementsAre(0, 4));
}

TEST(RouteTest, IdsAreDistinctAndInRangeWhateverTheLogits) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const std::vector<float>& logits :
       {std::vector<float>{nan, nan, nan, nan}, {inf, inf, inf, inf}, {-inf, -inf, -inf, -inf}, {nan, inf, -inf, 1}}) {
    for (RouteScore score : {RouteScore::kSoftmax, RouteScore::kSigmoid}) {
      for (RouteGroupScore group : {RouteGroupScore::kMax, RouteGroupScore::kTopTwoSum}) {
        const Routed routed =
            RouteRow(logits, {.top_k = 2, .score = score, .num_groups = 2, .top_groups = 1, .group_score = group});
        EXPECT_EQ(std::set<int32_t>(routed.experts.begin(), routed.experts.end()).size(), 2u);
        for (int32_t e : routed.experts) EXPECT_TRUE(e >= 0 && e < 4) << e;
      }
    }
  }
}

TEST(MoeRefTest, HandWorkedCase) {
  // Two experts of one hidden unit: expert 0 is 2 silu(x0) x1 + 1, expert 1 is -silu(x1) x0.
  const std::unique_ptr<Backend> backend = RefBackend();
  Matrix gate_up0(DType::kFloat32, 2, 2), gate_up1(DType::kFloat32, 2, 2), down0(DType::kFloat32, 2, 1),
      down1(DType::kFloat32, 2, 1);
  gate_up0.Fill({{1, 0}, {0, 1}});
  gate_up1.Fill({{0, 1}, {1, 0}});
  down0.Fill({{2}, {0}});
  down1.Fill({{0}, {-1}});
  std::vector<LinearWeight> gate_up, down;
  for (const Matrix* m : {&gate_up0, &gate_up1})
    gate_up.push_back(*backend->PackLinear({m->tensor()}, DType::kFloat32));
  for (const Matrix* m : {&down0, &down1}) down.push_back(*backend->PackLinear({m->tensor()}, DType::kFloat32));
  Matrix x(DType::kFloat32, 2, 2), y(DType::kFloat32, 2, 2);
  x.Fill({{1, 3}, {2, 1}});
  y.Fill({{100, 100}, {200, 200}});
  const int32_t experts[] = {1, 0, 0, 1};
  const float weights[] = {0.25f, 0.75f, 1, 0};
  const float down_bias[] = {1, 0, 0, 0};
  backend->Moe({.x = x.tensor(),
                .experts = experts,
                .weights = weights,
                .top_k = 2,
                .num_experts = 2,
                .gate_up = gate_up.data(),
                .down = down.data(),
                .gate = {},
                .y = y.tensor(),
                .gate_up_bias = nullptr,
                .down_bias = down_bias});
  // silu(1) = 0.731059, silu(2) = 1.761594, silu(3) = 2.857722
  EXPECT_THAT(y.Row(0), ElementsAre(FloatNear(100 + 0.75f * (2 * 0.731059f * 3 + 1), 1e-4f),
                                    FloatNear(100 - 0.25f * 2.857722f, 1e-4f)));
  EXPECT_THAT(y.Row(1), ElementsAre(FloatNear(200 + 2 * 1.761594f * 1 + 1, 1e-4f), 200));
}

struct MoeShape {
  int32_t num_experts, top_k;
  int64_t hidden, intermediate;
};

// A call of random numbers; the same on every backend.
struct MoeProblem {
  MoeProblem(Backend& backend, const MoeShape& shape, int64_t rows, WeightFormat format)
      : gate_up(RandomWeights(backend, shape.num_experts, 2 * shape.intermediate, shape.hidden, format, 1)),
        down(RandomWeights(backend, shape.num_experts, shape.hidden, shape.intermediate, format, 2)),
        gate_up_bias(DType::kFloat32, shape.num_experts, 2 * shape.intermediate),
        down_bias(DType::kFloat32, shape.num_experts, shape.hidden),
        x(format.dtype, rows, shape.hidden, 8),
        y(DType::kFloat32, rows, shape.hidden, 3),
        experts(static_cast<size_t>(rows * shape.top_k)),
        weights(experts.size()) {
    gate_up_bias.FillRandom(3);
    down_bias.FillRandom(4);
    x.FillRandom(5, 2.0f);
    y.FillRandom(6);
    Matrix logits(DType::kFloat32, rows, shape.num_experts);
    logits.FillRandom(7, 4.0f);
    for (int64_t r = 0; r < rows; ++r) logits.Set(r, 1, 10);  // one that every row chooses
    HostRoute({.logits = logits.tensor(),
               .top_k = shape.top_k,
               .experts = experts.data(),
               .weights = weights.data(),
               .normalize = true},
              0, rows);
    args = {.x = x.tensor(),
            .experts = experts.data(),
            .weights = weights.data(),
            .top_k = shape.top_k,
            .num_experts = shape.num_experts,
            .gate_up = gate_up.data(),
            .down = down.data(),
            .gate = {},
            .y = y.tensor(),
            .gate_up_bias = gate_up_bias.tensor().Row<float>(0),
            .down_bias = down_bias.tensor().Row<float>(0)};
  }
  MoeArgs Rows(int64_t begin, int64_t count) const {
    MoeArgs part = args;
    part.x = args.x.Rows(begin, count);
    part.y = args.y.Rows(begin, count);
    part.experts += begin * args.top_k;
    part.weights += begin * args.top_k;
    return part;
  }

  std::vector<LinearWeight> gate_up, down;
  Matrix gate_up_bias, down_bias, x, y;
  std::vector<int32_t> experts;
  std::vector<float> weights;
  MoeArgs args;
};

class MoeTest : public EachIsa {
 protected:
  std::unique_ptr<Backend> Cpu(int num_threads, const MoeShape& shape, int64_t rows) const {
    return CpuBackend(GetParam(), num_threads,
                      {.max_rows = rows,
                       .num_experts = shape.num_experts,
                       .experts_per_token = shape.top_k,
                       .hidden = static_cast<int32_t>(shape.hidden),
                       .expert_intermediate = static_cast<int32_t>(shape.intermediate)});
  }
};
INSTANTIATE_TEST_SUITE_P(Isas, MoeTest, testing::ValuesIn(SupportedCpuIsas()), IsaTestName);

TEST_P(MoeTest, AgreesWithTheDefinition) {
  const std::unique_ptr<Backend> ref = RefBackend();
  for (const MoeShape& shape : {MoeShape{4, 2, 48, 96}, {16, 4, 130, 34}, {3, 3, 64, 64}, {2, 1, 16, 8}}) {
    for (int64_t rows : {1, 5, 150}) {  // 150 rows of top-4 are three waves
      for (DType dtype : kAllDTypes) {
        const std::unique_ptr<Backend> cpu = Cpu(2, shape, rows);
        MoeProblem want(*ref, shape, rows, dtype), got(*cpu, shape, rows, dtype);
        ref->Moe(want.args);
        cpu->Moe(got.args);
        // One more rounding of the gated vector may fall the other way.
        const float bound = dtype == DType::kFloat32 ? 2e-5f : dtype == DType::kFloat16 ? 2e-3f : 1.5e-2f;
        EXPECT_LE(Difference(got.y, want.y), bound) << DTypeName(dtype) << ", " << rows << " rows";
      }
    }
  }
}

TEST_P(MoeTest, QuantisedExpertsAgreeWithTheDefinition) {
  const std::unique_ptr<Backend> ref = RefBackend();
  const MoeShape shape{16, 4, 320, 96};
  for (BlockFormat blocks : {BlockFormat::kQ8_0, BlockFormat::kQ4_0}) {
    for (int64_t rows : {1, 5, 150}) {
      const WeightFormat format(DType::kBFloat16, blocks);
      const std::unique_ptr<Backend> cpu = Cpu(2, shape, rows);
      MoeProblem want(*ref, shape, rows, format), got(*cpu, shape, rows, format);
      ref->Moe(want.args);
      cpu->Moe(got.args);
      // The rows are rounded to 8 bits too: 1/254 of the largest of 32, of either sign, in both products.
      EXPECT_LE(Difference(got.y, want.y), 4e-2f) << InfoOf(blocks).name << ", " << rows << " rows";
    }
  }
}

TEST_P(MoeTest, ARowHasTheSameBitsInAnyCompanyAndForAnyNumberOfWorkers) {
  const MoeShape shape{8, 3, 96, 80};
  constexpr int64_t kRows = 200;
  for (const WeightFormat& format :
       {WeightFormat(DType::kFloat32), WeightFormat(DType::kBFloat16), WeightFormat(DType::kFloat16),
        WeightFormat(DType::kBFloat16, BlockFormat::kQ8_0)}) {
    const std::unique_ptr<Backend> one = Cpu(1, shape, kRows), three = Cpu(3, shape, kRows);
    MoeProblem together(*three, shape, kRows, format), alone(*one, shape, kRows, format),
        parts(*three, shape, kRows, format);
    three->Moe(together.args);
    for (int64_t r = 0; r < kRows; ++r) one->Moe(alone.Rows(r, 1));
    three->Moe(parts.Rows(0, 67));
    three->Moe(parts.Rows(67, kRows - 67));
    EXPECT_TRUE(SameBits(together.y, alone.y)) << DTypeName(format.dtype);
    EXPECT_TRUE(SameBits(together.y, parts.y)) << DTypeName(format.dtype);
  }
}

}  // namespace
}  // namespace quire
