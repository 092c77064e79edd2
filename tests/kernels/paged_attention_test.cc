// Paged attention worked by hand, for the definition and for the CPU on every instruction set: each test fails for one
// obvious mistake.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "kernels/cpu/isa.h"
#include "tests/kernels/paged_attention_problem.h"

namespace quire {
namespace {

using ::testing::FloatNear;
using ::testing::Pointwise;

const float kLn2 = std::log(2.0f);
const float kLn3 = std::log(3.0f);

// nullopt is the definition.
class PagedAttentionTest : public testing::TestWithParam<std::optional<CpuIsa>> {
 protected:
  static void ExpectOut(PagedAttentionProblem& problem, const std::vector<float>& expected, float tolerance = 1e-5f) {
    const std::vector<float> out = GetParam().has_value() ? problem.Cpu(*GetParam(), 1) : problem.Ref();
    EXPECT_THAT(out, Pointwise(FloatNear(tolerance), expected));
  }

  // Sets all dims of one query, or of one slot's K and V.
  static void SetQ(PagedAttentionProblem& problem, int32_t row, int32_t q_head, const std::vector<float>& q) {
    for (size_t d = 0; d < q.size(); ++d) problem.q(row, q_head, d) = q[d];
  }
  static void SetKv(PagedAttentionProblem& problem, int32_t position, int32_t kv_head, const std::vector<float>& k,
                    const std::vector<float>& v) {
    for (size_t d = 0; d < k.size(); ++d) problem.SetK(0, position, kv_head, d, k[d]);
    for (size_t d = 0; d < v.size(); ++d) problem.SetV(0, position, kv_head, d, v[d]);
  }
};

std::vector<std::optional<CpuIsa>> All() {
  std::vector<std::optional<CpuIsa>> all = {std::nullopt};
  for (CpuIsa isa : SupportedCpuIsas()) all.push_back(isa);
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, PagedAttentionTest, testing::ValuesIn(All()), [](const auto& info) {
  return info.param.has_value() ? std::string(CpuIsaName(*info.param)) : "ref";
});

TEST_P(PagedAttentionTest, TheExampleOfTheHeader) {
  PagedAttentionProblem problem({1, 1, 2, 16}, {{0, 1, 1}});
  problem.set_scale(0.5f);
  SetQ(problem, 0, 0, {2, 0});
  SetKv(problem, 0, 0, {0, 1}, {4, 0});
  SetKv(problem, 1, 0, {kLn3, 0}, {0, 8});
  ExpectOut(problem, {1, 6});
}

TEST_P(PagedAttentionTest, ScoresAreScaled) {
  PagedAttentionProblem problem({1, 1, 2, 16}, {{0, 1, 1}});
  problem.set_scale(0.125f);
  SetQ(problem, 0, 0, {8, 0});
  SetKv(problem, 0, 0, {0, 0}, {0, 0});
  SetKv(problem, 1, 0, {kLn3, 0}, {4, 4});
  ExpectOut(problem, {3, 3});  // unscaled: 4 * 3^8 / (1 + 3^8) = 3.9994
}

TEST_P(PagedAttentionTest, QHeadHReadsKvHeadHDividedByGroup) {
  PagedAttentionProblem problem({6, 2, 2, 16}, {{0, 0, 1}});
  SetKv(problem, 0, 0, {1, 1}, {1, 10});
  SetKv(problem, 0, 1, {1, 1}, {2, 20});
  ExpectOut(problem, {1, 10, 1, 10, 1, 10, 2, 20, 2, 20, 2, 20});  // h % kv_heads would alternate
}

TEST_P(PagedAttentionTest, EachQHeadMeetsTheKeysWithItsOwnQuery) {
  PagedAttentionProblem problem({2, 1, 2, 16}, {{0, 1, 1}});
  problem.set_scale(1);
  SetQ(problem, 0, 0, {1, 0});
  SetQ(problem, 0, 1, {0, 1});
  SetKv(problem, 0, 0, {0, kLn3}, {4, 0});
  SetKv(problem, 1, 0, {kLn3, 0}, {0, 4});
  ExpectOut(problem, {1, 3, 3, 1});
}

TEST_P(PagedAttentionTest, ARowSeesItsOwnPositionAndNothingBehind) {
  PagedAttentionProblem problem({1, 1, 2, 16}, {{0, 0, 3}});
  for (int32_t row = 0; row < 3; ++row) SetQ(problem, row, 0, {0, 0});
  SetKv(problem, 0, 0, {5, 5}, {3, 1});
  SetKv(problem, 1, 0, {5, 5}, {6, 2});
  SetKv(problem, 2, 0, {5, 5}, {12, 9});
  ExpectOut(problem, {3, 1, 4.5f, 1.5f, 7, 4});
}

TEST_P(PagedAttentionTest, PositionsAreFoundThroughTheBlockTable) {
  // 20 positions in three blocks of 8; only the last position of each block and the last of all have a value.
  PagedAttentionProblem problem({1, 1, 2, 8}, {{0, 19, 1}}, 3);
  SetQ(problem, 0, 0, {0, 0});
  for (int32_t t = 0; t < 20; ++t) {
    const float value = t == 7 ? 20 : t == 15 ? 200 : t == 19 ? 2000 : 0;
    SetKv(problem, t, 0, {1, 1}, {value, -value});
  }
  ExpectOut(problem, {111, -111}, 1e-3f);
}

TEST_P(PagedAttentionTest, EveryDimOfKeysAndValuesIsInItsPlace) {
  constexpr int32_t kHeadDim = 6;
  for (int32_t dim = 0; dim < kHeadDim; ++dim) {
    PagedAttentionProblem problem({1, 1, kHeadDim, 8}, {{0, 8, 1}});
    problem.set_scale(1);
    std::vector<float> one_hot(kHeadDim);
    one_hot[dim] = 1;
    SetQ(problem, 0, 0, one_hot);
    // Position 8, slot 0 of the second block, scores ln 2 * (dim + 1); all others 0 in the dim that counts.
    for (int32_t t = 0; t <= 8; ++t) {
      std::vector<float> k(kHeadDim), v(kHeadDim);
      for (int32_t d = 0; d < kHeadDim; ++d) {
        k[d] = t == 8 ? kLn2 * static_cast<float>(d + 1) : d == dim ? 0.0f : 50.0f;
        v[d] = t == 8 ? static_cast<float>(d + 1) : 0.0f;
      }
      SetKv(problem, t, 0, k, v);
    }
    const float power = std::exp2(static_cast<float>(dim + 1));
    std::vector<float> expected;
    for (int32_t d = 0; d < kHeadDim; ++d) expected.push_back(static_cast<float>(d + 1) * power / (power + 8));
    ExpectOut(problem, expected);
  }
}

TEST_P(PagedAttentionTest, QueriesAreRoundedToTheTypeOfTheCache) {
  PagedAttentionProblem problem({1, 1, 2, 16, DType::kBFloat16}, {{0, 1, 1}});
  problem.set_scale(1);
  SetQ(problem, 0, 0,
       {1 + 0x1p-9f, 1});  // the first rounds to 1, a tie to even; else the scores would be 128.25 and 128
  SetKv(problem, 0, 0, {128, 0}, {4, 0});
  SetKv(problem, 1, 0, {0, 128}, {0, 4});
  ExpectOut(problem, {2, 2});
}

TEST_P(PagedAttentionTest, AWindowOfThreeSeesThreePositionsItsOwnIncluded) {
  PagedAttentionProblem problem({.q_heads = 1, .kv_heads = 1, .head_dim = 2, .block_size = 8, .window = 3},
                                {{0, 9, 3}});
  for (int32_t row = 0; row < 3; ++row) SetQ(problem, row, 0, {0, 0});
  for (int32_t t = 7; t < 12; ++t) SetKv(problem, t, 0, {1, 1}, {t == 8 ? 30.0f : 0, t == 11 ? 3.0f : 9.0f});
  ExpectOut(problem, {10, 9, 10, 9, 0, 7});  // positions 9, 10, 11 see 7-9, 8-10, 9-11
}

TEST_P(PagedAttentionTest, AWindowOfOneIsTheRowItself) {
  PagedAttentionProblem problem({.q_heads = 1, .kv_heads = 1, .head_dim = 2, .block_size = 8, .window = 1},
                                {{0, 63, 2}});
  SetKv(problem, 63, 0, {1, 1}, {5, 6});
  SetKv(problem, 64, 0, {1, 1}, {7, 8});
  ExpectOut(problem, {5, 6, 7, 8});
}

TEST_P(PagedAttentionTest, SoftCapBendsTheScaledScore) {
  PagedAttentionProblem problem({.q_heads = 1, .kv_heads = 1, .head_dim = 2, .block_size = 8, .softcap = 2},
                                {{0, 1, 1}});
  problem.set_scale(0.5f);
  SetQ(problem, 0, 0, {2, 0});
  SetKv(problem, 0, 0, {0, 1}, {4, 0});
  SetKv(problem, 1, 0, {2 * std::atanh(kLn3 / 2), 0}, {0, 8});  // 2 tanh(atanh(ln 3 / 2)) = ln 3
  ExpectOut(problem, {1, 6});
}

TEST_P(PagedAttentionTest, ASinkTakesWeightAndGivesNoValue) {
  PagedAttentionProblem problem({.q_heads = 2, .kv_heads = 1, .head_dim = 2, .block_size = 8, .sinks = true},
                                {{0, 1, 1}});
  problem.set_scale(0.5f);
  problem.set_sink(0, 2 * kLn2);  // beside e^0 and e^(ln 3) stands e^(ln 4): half of the weight
  problem.set_sink(1, 300);       // all of the weight
  SetQ(problem, 0, 0, {2, 0});
  SetQ(problem, 0, 1, {2, 0});
  SetKv(problem, 0, 0, {0, 1}, {4, 0});
  SetKv(problem, 1, 0, {kLn3, 0}, {0, 8});
  ExpectOut(problem, {0.5f, 3, 0, 0});
}

TEST_P(PagedAttentionTest, AlibiAddsTheKeysPositionTimesTheSlopeBeforeTheScale) {
  PagedAttentionProblem problem({.q_heads = 2, .kv_heads = 1, .head_dim = 2, .block_size = 8, .alibi = true},
                                {{0, 1, 1}});
  problem.set_scale(kLn3 / 2);
  problem.set_slope(0, 2);
  problem.set_slope(1, 0);
  for (int32_t head = 0; head < 2; ++head) SetQ(problem, 0, head, {0, 0});
  SetKv(problem, 0, 0, {1, 1}, {4, 0});
  SetKv(problem, 1, 0, {1, 1}, {0, 8});
  ExpectOut(problem, {1, 6, 2, 4});
}

TEST_P(PagedAttentionTest, AlibiIsRoundedToBfloat16AsInFalcon) {
  // Positions 511 and 513 round to 512, 1 to 1: the scores of 511, 512 and 513 are alike. The slope 0.30078125 times
  // 512 is 154, times 510 = 153.398 rounds to 153.
  PagedAttentionProblem problem(
      {.q_heads = 1, .kv_heads = 1, .head_dim = 2, .block_size = 8, .window = 4, .alibi = true}, {{0, 513, 1}});
  problem.set_scale(kLn2);
  problem.set_slope(0, 0.30078125f);
  SetQ(problem, 0, 0, {0, 0});
  for (int32_t t = 510; t < 514; ++t) SetKv(problem, t, 0, {1, 1}, {t == 510 ? 7.0f : 0, t == 513 ? 7.0f : 0});
  ExpectOut(problem, {1, 2});
}

TEST_P(PagedAttentionTest, ALaterLargerScoreTakesOver) {
  // The best score comes in the second split; what was summed before shrinks to nothing.
  PagedAttentionProblem problem({1, 1, 2, 16}, {{0, 600, 1}});
  problem.set_scale(1);
  SetQ(problem, 0, 0, {1, 0});
  for (int32_t t = 0; t <= 600; ++t) SetKv(problem, t, 0, {t == 599 ? 60.0f : 0.0f, 0}, {t == 599 ? 5.0f : 1.0f, 0});
  ExpectOut(problem, {5, 0});
}

}  // namespace
}  // namespace quire
