// Sampling by the definition and by the CPU on every instruction set: hand-worked cases, exact distributions, and the
// same bits everywhere.

#include "kernels/sampling/sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/sampling/impl.h"
#include "kernels/sampling/philox.h"

namespace quire {
namespace {

using ::testing::ElementsAre;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kLn2 = std::log(2.0f);

TEST(PhiloxTest, KnownAnswersOfRandom123) {
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}), ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  const uint32_t ones = 0xffffffff;
  EXPECT_THAT(Philox4x32({ones, ones, ones, ones}, {ones, ones}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
              ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(PhiloxTest, AllBitsOfSeedAndPositionCount) {
  const uint64_t bits = RandomBits(1, 2);
  for (int i = 0; i < 64; ++i) {
    EXPECT_NE(RandomBits(1 ^ uint64_t{1} << i, 2), bits);
    EXPECT_NE(RandomBits(1, 2 ^ uint64_t{1} << i), bits);
  }
}

// The definition, or the CPU with an instruction set and a number of threads.
struct Implementation {
  std::optional<CpuIsa> isa;
  int num_threads = 1;

  std::string Name() const {
    return isa.has_value() ? std::string(CpuIsaName(*isa)) + "_" + std::to_string(num_threads) : "ref";
  }
};

std::vector<Implementation> Implementations() {
  std::vector<Implementation> all = {{}};
  for (CpuIsa isa : SupportedCpuIsas()) all.push_back({isa, 1});
  all.push_back({CpuIsa::kPortable, 3});
  return all;
}

struct Answer {
  std::vector<SampledToken> tokens;
  std::vector<std::vector<TokenLogprob>> top;
};

// Runs operations on rows of logits of one length.
class Runner {
 public:
  explicit Runner(const Implementation& implementation) : implementation_(implementation) {
    ThreadPoolOptions options;
    options.num_threads = implementation.num_threads;
    pool_ = std::move(ThreadPool::Create(options)).value();
  }

  Answer Sample(std::vector<std::vector<float>> rows, const std::vector<SampleRow>& params,
                const SampledToken* drawn = nullptr) {
    const int64_t vocab_size = rows[0].size();
    std::vector<float> logits = Flat(rows);
    Answer answer;
    answer.tokens.resize(rows.size());
    std::vector<TokenLogprob> top(rows.size() * kTopStride);
    const SampleArgs args{Tensor::Contiguous(logits.data(), DType::kFloat32, rows.size(), vocab_size),
                          params.data(),
                          answer.tokens.data(),
                          top.data(),
                          kTopStride,
                          drawn};
    if (implementation_.isa.has_value()) {
      CpuSample(args, *implementation_.isa, *pool_, Workspace(vocab_size));
    } else {
      RefSample(args);
    }
    for (size_t r = 0; r < rows.size(); ++r) {
      const int32_t num_top = params[r].wants_logprob ? params[r].num_top : 0;
      answer.top.emplace_back(&top[r * kTopStride], &top[r * kTopStride] + std::min<int64_t>(num_top, vocab_size));
    }
    return answer;
  }

  SampledToken Sample(const std::vector<float>& logits, const SamplingParams& params, uint64_t position = 0) {
    SampleRow row;
    row.params = &params;
    row.position = position;
    return Sample(std::vector<std::vector<float>>{logits}, {row}).tokens[0];
  }

  Answer Score(const std::vector<std::vector<float>>& rows, const std::vector<uint32_t>& targets, int32_t num_top) {
    const int64_t vocab_size = rows[0].size();
    std::vector<float> logits = Flat(rows);
    const std::vector<float> before = logits;
    std::vector<float> logprobs(rows.size());
    std::vector<TokenLogprob> top(rows.size() * num_top + 1);
    const ScoreArgs args{Tensor::Contiguous(logits.data(), DType::kFloat32, rows.size(), vocab_size), targets.data(),
                         num_top, logprobs.data(), top.data()};
    if (implementation_.isa.has_value()) {
      CpuScore(args, *implementation_.isa, *pool_, Workspace(vocab_size));
    } else {
      RefScore(args);
    }
    EXPECT_EQ(std::memcmp(logits.data(), before.data(), logits.size() * 4), 0) << "Score changed the logits";
    Answer answer;
    for (size_t r = 0; r < rows.size(); ++r) {
      answer.tokens.push_back({targets[r], true, logprobs[r]});
      answer.top.emplace_back(&top[r * num_top], &top[r * num_top] + std::min<int64_t>(num_top, vocab_size));
    }
    return answer;
  }

  // The set of ids that 2000 draws give.
  std::vector<uint32_t> Support(const std::vector<float>& logits, const SamplingParams& params) {
    const std::vector<int> counts = Counts(logits, params, 2000);
    std::vector<uint32_t> support;
    for (size_t i = 0; i < counts.size(); ++i) {
      if (counts[i] > 0) support.push_back(i);
    }
    return support;
  }

  std::vector<int> Counts(const std::vector<float>& logits, const SamplingParams& params, int num_draws) {
    SampleRow row;
    row.params = &params;
    return Counts(logits, row, num_draws);
  }
  std::vector<int> Counts(const std::vector<float>& logits, const SampleRow& row, int num_draws) {
    std::vector<int> counts(logits.size());
    constexpr int kBatch = 1000;
    for (int draw = 0; draw < num_draws; draw += kBatch) {
      std::vector<SampleRow> rows(kBatch, row);
      for (int i = 0; i < kBatch; ++i) rows[i].position = draw + i;
      for (const SampledToken& token : Sample(std::vector<std::vector<float>>(kBatch, logits), rows).tokens)
        ++counts[token.id];
    }
    return counts;
  }

 private:
  static constexpr int32_t kTopStride = 20;

  static std::vector<float> Flat(const std::vector<std::vector<float>>& rows) {
    std::vector<float> flat;
    for (const std::vector<float>& row : rows) flat.insert(flat.end(), row.begin(), row.end());
    return flat;
  }

  absl::Span<char> Workspace(int64_t vocab_size) {
    WorkspaceShape shape;
    shape.vocab_size = vocab_size;
    const size_t bytes = CpuSampleWorkspaceBytes(shape, implementation_.num_threads);
    workspace_.assign(bytes + 64, '\xff');
    return absl::MakeSpan(workspace_.data() + (64 - reinterpret_cast<uintptr_t>(workspace_.data()) % 64) % 64, bytes);
  }

  Implementation implementation_;
  std::unique_ptr<ThreadPool> pool_;
  std::vector<char> workspace_;
};

SamplingParams Params(float temperature, uint32_t top_k = 0, float top_p = 1, float min_p = 0, uint64_t seed = 7) {
  SamplingParams params;
  params.temperature = temperature;
  params.top_k = top_k;
  params.top_p = top_p;
  params.min_p = min_p;
  params.seed = seed;
  return params;
}

SamplingParams WithPenalties(SamplingParams params, float repetition, float frequency, float presence) {
  params.repetition_penalty = repetition;
  params.frequency_penalty = frequency;
  params.presence_penalty = presence;
  return params;
}

class SamplingTest : public testing::TestWithParam<Implementation> {
 protected:
  Runner runner_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(All, SamplingTest, testing::ValuesIn(Implementations()),
                         [](const auto& info) { return info.param.Name(); });

TEST_P(SamplingTest, GreedyTakesTheLargestAndOnATieTheSmallestId) {
  const SamplingParams greedy = Params(0);
  EXPECT_EQ(runner_.Sample({1, 3, 2}, greedy).id, 1u);
  EXPECT_EQ(runner_.Sample({1, 3, 3, 3}, greedy).id, 1u);
  EXPECT_EQ(runner_.Sample({-0.0f, 0.0f}, greedy).id, 0u);
  EXPECT_EQ(runner_.Sample({-kInfinity, -5, -kInfinity}, greedy).id, 1u);
  EXPECT_EQ(runner_.Sample({-std::numeric_limits<float>::max(), -kInfinity}, greedy).id, 0u);
  for (size_t at : {0, 1, 63, 64, 65, 127, 128, 300, 998, 999}) {
    std::vector<float> logits(1000, -1.0f);
    logits[at] = 2;
    EXPECT_EQ(runner_.Sample(logits, greedy).id, at);
    logits[999] = 2;
    EXPECT_EQ(runner_.Sample(logits, greedy).id, at);
  }
}

TEST_P(SamplingTest, RowsWithoutAnswerAreNotFinite) {
  for (float temperature : {0.0f, 1.0f}) {
    const SamplingParams params = Params(temperature);
    for (size_t size : {1, 3, 64, 65, 200}) {
      std::vector<float> logits(size, 1.0f);
      EXPECT_TRUE(runner_.Sample(logits, params).finite);
      for (size_t at : {size_t{0}, size / 2, size - 1}) {
        for (float bad : {NAN, -NAN, kInfinity}) {
          std::vector<float> broken = logits;
          broken[at] = bad;
          EXPECT_FALSE(runner_.Sample(broken, params).finite) << bad << " at " << at << " of " << size;
        }
      }
      EXPECT_FALSE(runner_.Sample(std::vector<float>(size, -kInfinity), params).finite);
    }
    EXPECT_TRUE(runner_.Sample({-kInfinity, 0}, params).finite);
  }
}

TEST_P(SamplingTest, BannedIdsAreNeverDrawn) {
  std::vector<float> logits(100, 0.0f);
  logits[70] = 9;
  logits[3] = 8;
  const std::vector<uint32_t> banned = {70, 5};
  for (float temperature : {0.0f, 1.0f}) {
    const SamplingParams params = Params(temperature);
    SampleRow row;
    row.params = &params;
    row.banned = banned;
    row.wants_logprob = true;
    row.num_top = 1;
    for (row.position = 0; row.position < 50; ++row.position) {
      const Answer answer = runner_.Sample(std::vector<std::vector<float>>{logits}, {row});
      EXPECT_NE(answer.tokens[0].id, 70u);
      EXPECT_NE(answer.tokens[0].id, 5u);
      if (temperature == 0) {
        EXPECT_EQ(answer.tokens[0].id, 3u);
      }
      EXPECT_EQ(answer.top[0][0].id, 70u) << "log-probabilities are of the raw logits";
    }
  }
  const SamplingParams params = Params(1);
  const std::vector<uint32_t> all = {0, 1};
  SampleRow row;
  row.params = &params;
  row.banned = all;
  EXPECT_FALSE(runner_.Sample(std::vector<std::vector<float>>{{1, 2}}, {row}).tokens[0].finite);
}

// The logits of the row after bans, bias and penalties, as far as greedy draws tell: ids by falling logit, each banned
// once it was drawn.
std::vector<uint32_t> GreedyOrder(Runner& runner, const std::vector<float>& logits, SampleRow row) {
  std::vector<uint32_t> order(row.banned.begin(), row.banned.end());
  const size_t num_banned = order.size();
  while (true) {
    row.banned = order;
    const SampledToken token = runner.Sample(std::vector<std::vector<float>>{logits}, {row}).tokens[0];
    if (!token.finite) break;
    order.push_back(token.id);
  }
  return {order.begin() + num_banned, order.end()};
}

TEST_P(SamplingTest, PenaltiesAreThoseOfVllm) {
  // Prompt: 0, 1. Output: 2, 3, 3, 1.
  const std::vector<TokenCount> counts = {{0, 0}, {1, 1}, {2, 1}, {3, 2}};
  const std::vector<float> logits = {2, -2, 3, 3.5f, 1.2f, -2.5f};
  SamplingParams params = Params(0);
  SampleRow row;
  row.params = &params;
  row.counts = counts;
  EXPECT_THAT(GreedyOrder(runner_, logits, row), ElementsAre(3, 2, 0, 4, 1, 5)) << "nothing asked for";
  params.repetition_penalty = 2;  // 1, -4, 1.5, 1.75, 1.2, -2.5: of prompt and output
  EXPECT_THAT(GreedyOrder(runner_, logits, row), ElementsAre(3, 2, 4, 0, 5, 1));
  params.repetition_penalty = 0.5f;  // 4, -1, 6, 7, 1.2, -2.5
  EXPECT_THAT(GreedyOrder(runner_, logits, row), ElementsAre(3, 2, 0, 4, 1, 5));
  params = Params(0);
  params.frequency_penalty = 1;  // 2, -3, 2, 1.5, 1.2, -2.5: by count, the output alone; the tie of 0 and 2 to 0
  EXPECT_THAT(GreedyOrder(runner_, logits, row), ElementsAre(0, 2, 3, 4, 5, 1));
  params = Params(0);
  params.presence_penalty = 1.25f;  // 2, -3.25, 1.75, 2.25, 1.2, -2.5: once, the output alone
  EXPECT_THAT(GreedyOrder(runner_, logits, row), ElementsAre(3, 0, 2, 4, 5, 1));
  params.repetition_penalty = 2;  // first: 1, -5.25, 0.25, 0.5, 1.2, -2.5
  EXPECT_THAT(GreedyOrder(runner_, logits, row), ElementsAre(4, 0, 3, 2, 5, 1));
  params = Params(0);
  params.frequency_penalty = -2;  // 2, 0, 5, 7.5, 1.2, -2.5: a negative one encourages
  EXPECT_THAT(GreedyOrder(runner_, logits, row), ElementsAre(3, 2, 0, 4, 1, 5));
}

TEST_P(SamplingTest, TheTokenOfTheStepBeforeCountsAsTheOthers) {
  const std::vector<SampledToken> before = {{9}, {3}, {5}, {1}};
  const std::vector<TokenCount> counts = {{0, 0}, {1, 1}, {3, 2}};
  const std::vector<float> logits = {2, -2, 3, 3.5f, 1.2f, -2.5f};
  const SamplingParams params{
      .temperature = 1, .repetition_penalty = 1.2f, .frequency_penalty = 0.9f, .presence_penalty = 0.4f, .seed = 5};
  for (const uint32_t drawn : {1u, 2u, 3u}) {  // one that counts, one that is new, one that comes first
    std::vector<TokenCount> all = counts;
    const auto same = [&](const TokenCount& count) { return count.id == before[drawn].id; };
    if (const auto it = std::find_if(all.begin(), all.end(), same); it != all.end()) {
      ++it->in_output;
    } else {
      all.push_back({before[drawn].id, 1});
    }
    for (uint64_t position = 0; position < 200; ++position) {
      SampleRow row, whole;
      row.params = whole.params = &params;
      row.position = whole.position = position;
      row.counts = counts;
      row.drawn = drawn;
      whole.counts = all;
      EXPECT_EQ(runner_.Sample({logits}, {row}, before.data()).tokens[0].id,
                runner_.Sample(std::vector<std::vector<float>>{logits}, {whole}).tokens[0].id);
    }
  }
}

TEST_P(SamplingTest, BiasComesAfterBansAndBeforePenalties) {
  const std::vector<TokenBias> bias = {{0, 3}, {2, -100}, {3, 100}};
  const std::vector<uint32_t> banned = {3};
  const std::vector<TokenCount> counts = {{0, 1}};
  const std::vector<float> logits = {-1, 0.9f, 5, 4, -90};
  SamplingParams params = Params(0);
  SampleRow row;
  row.params = &params;
  row.bias = bias;
  EXPECT_THAT(GreedyOrder(runner_, logits, row), ElementsAre(3, 0, 1, 4, 2));
  row.banned = banned;  // 100 more than -inf is -inf
  EXPECT_THAT(GreedyOrder(runner_, logits, row), ElementsAre(0, 1, 4, 2));
  row.counts = counts;
  params.repetition_penalty = 4;  // of 2, which was -1: divided
  EXPECT_THAT(GreedyOrder(runner_, logits, row), ElementsAre(1, 0, 4, 2));
}

TEST_P(SamplingTest, OnlyAllowedIdsAreDrawnAndLogprobsStayThoseOfTheRawLogits) {
  std::vector<float> logits(200);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i % 50) / 10;
  const std::vector<uint32_t> allowed = {3, 130, 64};
  const std::vector<TokenBias> bias = {{3, 2}, {49, 100}};
  for (float temperature : {0.0f, 1.0f}) {
    const SamplingParams params = Params(temperature);
    SampleRow row;
    row.params = &params;
    row.allowed = allowed;
    row.bias = bias;
    row.wants_logprob = true;
    row.num_top = 5;
    for (row.position = 0; row.position < 50; ++row.position) {
      const Answer answer = runner_.Sample(std::vector<std::vector<float>>{logits}, {row});
      const Answer scored = runner_.Score({logits}, {answer.tokens[0].id}, 5);
      EXPECT_TRUE(answer.tokens[0].id == 3 || answer.tokens[0].id == 130 || answer.tokens[0].id == 64);
      if (temperature == 0) {
        EXPECT_EQ(answer.tokens[0].id, 130u) << "3.0 against 2.3 and 1.4";
      }
      EXPECT_EQ(answer.tokens[0].logprob, scored.tokens[0].logprob);
      EXPECT_EQ(std::memcmp(answer.top[0].data(), scored.top[0].data(), 5 * sizeof(TokenLogprob)), 0);
    }
    row.banned = allowed;
    EXPECT_FALSE(runner_.Sample(std::vector<std::vector<float>>{logits}, {row}).tokens[0].finite);
  }
}

TEST_P(SamplingTest, NoParameterMakesAFiniteRowInfinite) {
  SamplingParams params = Params(0);
  params.repetition_penalty = 1e-38f;
  const std::vector<TokenCount> counts = {{1, 3}};
  const std::vector<TokenBias> bias = {{0, 100}};
  SampleRow row;
  row.params = &params;
  row.counts = counts;
  row.bias = bias;
  for (float frequency_penalty : {-2.0f, 0.0f, 2.0f}) {
    params.frequency_penalty = frequency_penalty;
    const SampledToken token = runner_.Sample(std::vector<std::vector<float>>{{1, 20, 2}}, {row}).tokens[0];
    EXPECT_TRUE(token.finite);
    EXPECT_EQ(token.id, 1u);
  }
}

TEST_P(SamplingTest, TopKKeepsTheLargestWithTiesBySmallerId) {
  EXPECT_THAT(runner_.Support({1, 2, 3, 2, 2}, Params(1, 1)), ElementsAre(2));
  EXPECT_THAT(runner_.Support({1, 2, 3, 2, 2}, Params(1, 2)), ElementsAre(1, 2));
  EXPECT_THAT(runner_.Support({1, 2, 3, 2, 2}, Params(1, 3)), ElementsAre(1, 2, 3));
  EXPECT_THAT(runner_.Support({1, 2, 3}, Params(1, 100)), ElementsAre(0, 1, 2));
  EXPECT_THAT(runner_.Support(std::vector<float>(300, 0.5f), Params(1, 3)), ElementsAre(0, 1, 2));
}

TEST_P(SamplingTest, TopPKeepsTheSmallestSetThatReachesIt) {
  // p = 1/2, 1/4, 1/8, 1/8 in the order of ids 2, 0, 1, 3.
  const std::vector<float> logits = {1 * kLn2, 0, 2 * kLn2, 0};
  EXPECT_THAT(runner_.Support(logits, Params(1, 0, 1e-6f)), ElementsAre(2));
  EXPECT_THAT(runner_.Support(logits, Params(1, 0, 0.4999f)), ElementsAre(2));
  EXPECT_THAT(runner_.Support(logits, Params(1, 0, 0.51f)), ElementsAre(0, 2));
  EXPECT_THAT(runner_.Support(logits, Params(1, 0, 0.76f)), ElementsAre(0, 1, 2));
  EXPECT_THAT(runner_.Support(logits, Params(1, 0, 0.999f)), ElementsAre(0, 1, 2, 3));
  // Exactly reached: four equal weights are exact.
  EXPECT_THAT(runner_.Support({0, 0, 0, 0}, Params(1, 0, 0.5f)), ElementsAre(0, 1));
  EXPECT_THAT(runner_.Support({0, 0, 0, 0}, Params(1, 0, 0.75f)), ElementsAre(0, 1, 2));
}

TEST_P(SamplingTest, TopPIsOfWhatTopKLeftAndMinPOfWhatTopPLeft) {
  // p = 4/10, 3/10, 2/10, 1/10.
  const std::vector<float> logits = {std::log(4.0f), std::log(3.0f), std::log(2.0f), 0};
  // Renormalised after top_k 2: 4/7, 3/7.
  EXPECT_THAT(runner_.Support(logits, Params(1, 2, 0.56f)), ElementsAre(0));
  EXPECT_THAT(runner_.Support(logits, Params(1, 2, 0.58f)), ElementsAre(0, 1));
  EXPECT_THAT(runner_.Support(logits, Params(1, 0, 1, 0.49f)), ElementsAre(0, 1, 2));
  EXPECT_THAT(runner_.Support(logits, Params(1, 0, 1, 0.51f)), ElementsAre(0, 1));
  EXPECT_THAT(runner_.Support(logits, Params(1, 0, 1, 1.0f)), ElementsAre(0));
  EXPECT_THAT(runner_.Support(logits, Params(1, 3, 0.99f, 0.7f)), ElementsAre(0, 1));
}

// Pearson's statistic; its 0.9999 quantile for up to 11 degrees of freedom is below 38.
double ChiSquare(const std::vector<int>& counts, std::vector<double> p, int num_draws) {
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  double chi_square = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double expected = num_draws * p[i] / sum;
    if (p[i] == 0 && counts[i] > 0) return kInfinity;
    if (p[i] > 0) chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  return chi_square;
}

TEST_P(SamplingTest, DrawsFollowTheExactDistribution) {
  constexpr int kDraws = 1000000;
  const std::vector<float> logits = {0.3f,  -1,   2,    1.5f, 0,    0.7f,
                                     -0.5f, 1.9f, 0.1f, -2,   1.1f, 0.9f};  // falling: 2 7 3 10 11 5 0 ...
  const auto exact = [&](double temperature, const std::vector<uint32_t>& kept) {
    std::vector<double> p(logits.size());
    for (size_t i = 0; i < p.size(); ++i) {
      if (kept.empty() || std::find(kept.begin(), kept.end(), i) != kept.end())
        p[i] = std::exp(logits[i] / temperature);
    }
    return p;
  };
  EXPECT_LT(ChiSquare(runner_.Counts(logits, Params(1), kDraws), exact(1, {}), kDraws), 38);
  EXPECT_LT(ChiSquare(runner_.Counts(logits, Params(0.5f), kDraws), exact(0.5, {}), kDraws), 38);
  EXPECT_LT(ChiSquare(runner_.Counts(logits, Params(100), kDraws), exact(100, {}), kDraws), 38);
  EXPECT_LT(ChiSquare(runner_.Counts(logits, Params(1, 4), kDraws), exact(1, {2, 7, 3, 10}), kDraws), 38);
  // Sums of p from the largest on: .226 .430 .567 .659 ...
  EXPECT_LT(ChiSquare(runner_.Counts(logits, Params(1, 0, 0.5f), kDraws), exact(1, {2, 7, 3}), kDraws), 38);
  // Those within ln 0.3 = -1.204 of the best.
  EXPECT_LT(ChiSquare(runner_.Counts(logits, Params(1, 0, 1, 0.3f), kDraws), exact(1, {2, 7, 3, 10, 11}), kDraws), 38);
  // A wrong distribution is seen.
  EXPECT_GT(ChiSquare(runner_.Counts(logits, Params(1), kDraws), exact(0.95, {}), kDraws), 38);
}

// tests/oracle/make_sampling_fixtures.py: what transformers' logits processors leave of random rows, with every mix of
// allowed and banned ids, bias, repetition penalty, temperature and filters.
TEST_P(SamplingTest, DrawsFollowTheProbabilitiesOfTransformers) {
  constexpr int kDraws = 20000;
  std::ifstream file(QUIRE_SOURCE_DIR "/tests/oracle/fixtures/sampling.json");
  const nlohmann::json cases = nlohmann::json::parse(file);
  ASSERT_GE(cases.size(), 50u);
  for (const nlohmann::json& c : cases) {
    SamplingParams params = Params(c["temperature"], c["top_k"], c["top_p"], c["min_p"]);
    params.repetition_penalty = c["repetition_penalty"];
    const auto logits = c["logits"].get<std::vector<float>>();
    const auto allowed = c["allowed"].get<std::vector<uint32_t>>();
    const auto banned = c["banned"].get<std::vector<uint32_t>>();
    std::vector<TokenBias> bias;
    for (const nlohmann::json& entry : c["bias"]) bias.push_back({entry[0], entry[1]});
    std::map<uint32_t, uint32_t> in_output;
    for (const uint32_t id : c["prompt"]) in_output[id] += 0;
    for (const uint32_t id : c["output"]) in_output[id] += 1;
    std::vector<TokenCount> counts;
    for (const auto& [id, count] : in_output) counts.push_back({id, count});
    SampleRow row;
    row.params = &params;
    row.allowed = allowed;
    row.banned = banned;
    row.bias = bias;
    if (params.HasPenalties()) row.counts = counts;

    const std::vector<int> found = runner_.Counts(logits, row, kDraws);
    // Rare tokens are taken together: Pearson's statistic wants to expect some of each.
    std::vector<int> lumped(1, 0);
    std::vector<double> p(1, 0);
    for (size_t id = 0; id < logits.size(); ++id) {
      const double probability = c["probabilities"][id];
      if (probability == 0) {
        EXPECT_EQ(found[id], 0) << "token " << id << " of " << c;
      } else if (probability * kDraws < 10) {
        lumped[0] += found[id];
        p[0] += probability;
      } else {
        lumped.push_back(found[id]);
        p.push_back(probability);
      }
    }
    EXPECT_LT(ChiSquare(lumped, p, kDraws), 85) << "the 0.9999 quantile of 40 degrees of freedom is 83; " << c;
  }
}

TEST_P(SamplingTest, ExtremeParametersAreNearTheirLimits) {
  const std::vector<float> logits = {1, 1.001f, 0.5f, -kInfinity};
  for (float temperature : {1e-6f, 1e-30f, 1e-44f})
    EXPECT_THAT(runner_.Support(logits, Params(temperature)), ElementsAre(1));
  EXPECT_THAT(runner_.Support(logits, Params(100)), ElementsAre(0, 1, 2));
  EXPECT_THAT(runner_.Support({5}, Params(1, 3, 0.5f, 0.5f)), ElementsAre(0));
  EXPECT_EQ(runner_.Sample({5}, Params(0)).id, 0u);
  EXPECT_THAT(runner_.Support({3e38f, -3e38f}, Params(1)), ElementsAre(0));
  EXPECT_THAT(runner_.Support({-3e38f, -3e38f}, Params(1)), ElementsAre(0, 1));
}

TEST_P(SamplingTest, TheTokenIsAFunctionOfSeedAndPosition) {
  const std::vector<float> logits(1000, 0.0f);
  const SampledToken token = runner_.Sample(logits, Params(1, 0, 1, 0, 5), 3);
  EXPECT_EQ(runner_.Sample(logits, Params(1, 0, 1, 0, 5), 3).id, token.id);
  EXPECT_NE(runner_.Sample(logits, Params(1, 0, 1, 0, 5), 4).id, token.id);
  EXPECT_NE(runner_.Sample(logits, Params(1, 0, 1, 0, 6), 3).id, token.id);
  // 1000 equal weights: the id is the place of the random bits in [0, 2^64).
  EXPECT_EQ(token.id, RandomBelow(RandomBits(5, 3), 1000));
}

TEST_P(SamplingTest, LogprobsOfAHandWorkedRow) {
  // Softmax: 1/7, 2/7, 4/7, 0.
  const std::vector<float> logits = {0, kLn2, 2 * kLn2, -kInfinity};
  const Answer answer = runner_.Score({logits, logits}, {0, 3}, 20);
  EXPECT_NEAR(answer.tokens[0].logprob, std::log(1.0 / 7), 1e-6);
  EXPECT_EQ(answer.tokens[1].logprob, -kInfinity);
  ASSERT_EQ(answer.top[0].size(), 4u);
  const uint32_t order[] = {2, 1, 0, 3};
  for (int i = 0; i < 4; ++i) EXPECT_EQ(answer.top[0][i].id, order[i]);
  EXPECT_NEAR(answer.top[0][0].logprob, std::log(4.0 / 7), 1e-6);
  EXPECT_NEAR(answer.top[0][1].logprob, std::log(2.0 / 7), 1e-6);
}

TEST_P(SamplingTest, LogprobsAreAccurateForLargeVocabulariesAndNeverPositive) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 3);
  for (size_t size : {1, 5, 4096, 152064}) {
    for (float offset : {0.0f, 1000.0f}) {
      std::vector<float> logits(size);
      for (float& logit : logits) logit = normal(random) + offset;
      const double max = *std::max_element(logits.begin(), logits.end());
      double sum = 0;
      for (float logit : logits) sum += std::exp(logit - max);
      const Answer answer = runner_.Score({logits}, {static_cast<uint32_t>(size - 1)}, 5);
      EXPECT_NEAR(answer.tokens[0].logprob, logits.back() - max - std::log(sum),
                  1e-6 * std::max(1.0, std::fabs(logits.back() - max)));
      for (const TokenLogprob& token : answer.top[0]) {
        EXPECT_LE(token.logprob, 0.0f);
        EXPECT_NEAR(token.logprob, logits[token.id] - max - std::log(sum), 1e-6);
      }
    }
  }
  const Answer certain = runner_.Score({{50, -50, -60}}, {0}, 1);
  EXPECT_EQ(certain.tokens[0].logprob, 0.0f);
}

TEST_P(SamplingTest, SampleGivesTheLogprobsThatScoreGives) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> logits(700);
  for (float& logit : logits) logit = normal(random);
  const SamplingParams params = Params(0.8f, 50);
  SampleRow row;
  row.params = &params;
  row.wants_logprob = true;
  row.num_top = 20;
  const Answer sampled = runner_.Sample(std::vector<std::vector<float>>{logits}, {row});
  const Answer scored = runner_.Score({logits}, {sampled.tokens[0].id}, 20);
  EXPECT_EQ(sampled.tokens[0].logprob, scored.tokens[0].logprob);
  ASSERT_EQ(sampled.top[0].size(), 20u);
  EXPECT_EQ(std::memcmp(sampled.top[0].data(), scored.top[0].data(), 20 * sizeof(TokenLogprob)), 0);
}

// Every implementation gives the definition's tokens and log-probabilities, bit by bit, for peaked, flat, tied and cut
// rows.
TEST_P(SamplingTest, EveryImplementationIsTheDefinition) {
  Runner ref(Implementation{});
  std::mt19937 random(5);
  const std::vector<SamplingParams> all_params = {Params(0),
                                                  Params(1),
                                                  Params(0.7f, 20),
                                                  Params(1.3f, 700, 0.9f),
                                                  Params(1, 0, 0.95f),
                                                  Params(2, 0, 0.999f, 0.01f),
                                                  Params(1, 0, 1, 0.05f),
                                                  Params(5, 3000, 0.3f),
                                                  Params(0.3f, 1, 0.5f),
                                                  Params(100, 0, 0.5f),
                                                  WithPenalties(Params(0), 1.3f, 0.5f, -0.7f),
                                                  WithPenalties(Params(1.2f, 30, 0.9f, 0.01f), 0.8f, -1, 2)};
  for (size_t size : {1, 2, 63, 64, 65, 1000, 4099}) {
    std::vector<std::vector<float>> rows;
    std::vector<SampleRow> params;
    std::vector<uint32_t> targets;
    const std::vector<uint32_t> banned = {0, static_cast<uint32_t>(size / 2)};
    std::vector<uint32_t> allowed;
    std::vector<TokenBias> bias;
    std::vector<TokenCount> counts;
    for (size_t id = 0; id < size; ++id) {
      if (id % 3 != 1) allowed.push_back(size - 1 - id);
      if (id % 17 == 1) bias.push_back({static_cast<uint32_t>(id), static_cast<float>(id % 7) - 3});
      if (id % 5 == 0) counts.push_back({static_cast<uint32_t>(id), static_cast<uint32_t>(id % 4)});
    }
    for (int i = 0; i < 60; ++i) {
      std::normal_distribution<float> normal(0, i % 3 == 0 ? 0.1f : i % 3 == 1 ? 2.0f : 8.0f);
      std::vector<float> logits(size);
      for (float& logit : logits) logit = i % 4 == 0 ? std::round(normal(random)) : normal(random);
      if (i % 5 == 0) logits[random() % size] = -kInfinity;
      if (i % 19 == 0) logits[random() % size] = NAN;
      rows.push_back(logits);
      SampleRow row;
      row.params = &all_params[i % all_params.size()];
      row.position = i;
      row.wants_logprob = i % 2 == 0;
      row.num_top = i % 21;
      if (i % 7 == 0) {
        row.banned = banned;
      }
      if (i % 4 == 1) row.allowed = allowed;
      if (i % 4 > 1) row.bias = bias;
      if (i % 3 == 1) row.counts = counts;
      params.push_back(row);
      targets.push_back(random() % size);
    }
    const auto expect_same = [&](const Answer& found, const Answer& expected) {
      for (size_t r = 0; r < rows.size(); ++r) {
        EXPECT_EQ(found.tokens[r].id, expected.tokens[r].id) << "row " << r << " of " << size;
        EXPECT_EQ(found.tokens[r].finite, expected.tokens[r].finite);
        EXPECT_EQ(found.tokens[r].logprob, expected.tokens[r].logprob);
        ASSERT_EQ(found.top[r].size(), expected.top[r].size());
        EXPECT_EQ(std::memcmp(found.top[r].data(), expected.top[r].data(), found.top[r].size() * sizeof(TokenLogprob)),
                  0);
      }
    };
    expect_same(runner_.Sample(rows, params), ref.Sample(rows, params));
    expect_same(runner_.Score(rows, targets, 7), ref.Score(rows, targets, 7));
  }
}

}  // namespace
}  // namespace quire
