// Sampling by the CUDA kernels, emulated, against the definition: the same tokens bit by bit, the same best ids, and
// log-probabilities within the contract.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "kernels/sampling/impl.h"
#include "tests/kernels/cuda/emulated_backend.h"

namespace quire {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int32_t kTopStride = 20;

class SamplingCudaTest : public testing::TestWithParam<bool> {
 protected:
  SamplingCudaTest() : backend_(MakeEmulatedCudaBackend({.late_copies = true, .reversed = GetParam()}, false)) {
    WorkspaceShape shape;
    shape.max_rows = shape.max_head_rows = shape.max_sequences = 16;
    shape.vocab_size = 4000;
    shape.max_context = 4000;
    shape.q_heads = shape.kv_heads = 1;
    shape.head_dim = 64;
    EXPECT_TRUE(backend_->AllocateWorkspace(shape).ok());
  }

  // `drawn`: of the step before, which this backend ran.
  std::vector<SampledToken> ExpectAsRef(const std::vector<std::vector<float>>& logits,
                                        const std::vector<SampleRow>& rows, const SampledToken* drawn = nullptr) {
    const auto num_rows = static_cast<int64_t>(logits.size()), vocab = static_cast<int64_t>(logits[0].size());
    std::vector<float> want_logits, got_logits;
    for (const auto& row : logits) want_logits.insert(want_logits.end(), row.begin(), row.end());
    got_logits = want_logits;
    std::vector<SampledToken> want(num_rows), got(num_rows);
    std::vector<TokenLogprob> want_top(num_rows * kTopStride), got_top(num_rows * kTopStride);
    RefSample({Tensor::Contiguous(want_logits.data(), DType::kFloat32, num_rows, vocab), rows.data(), want.data(),
               want_top.data(), kTopStride, drawn});
    EXPECT_TRUE(backend_->BeginStep().ok());
    backend_->Sample({Tensor::Contiguous(got_logits.data(), DType::kFloat32, num_rows, vocab), rows.data(), got.data(),
                      got_top.data(), kTopStride, drawn});
    EXPECT_TRUE(backend_->EndStep().ok() && backend_->AwaitStep().ok());
    for (int64_t r = 0; r < num_rows; ++r) {
      EXPECT_EQ(got[r].id, want[r].id) << "row " << r;
      EXPECT_EQ(got[r].finite, want[r].finite) << "row " << r;
      if (!rows[r].wants_logprob) continue;
      ExpectNear(got[r].logprob, want[r].logprob);
      for (int64_t i = 0; i < std::min<int64_t>(rows[r].num_top, vocab); ++i) {
        EXPECT_EQ(got_top[r * kTopStride + i].id, want_top[r * kTopStride + i].id) << "row " << r << " place " << i;
        ExpectNear(got_top[r * kTopStride + i].logprob, want_top[r * kTopStride + i].logprob);
      }
    }
    return want;
  }

  static void ExpectNear(float got, float want) {
    if (std::isinf(want)) {
      EXPECT_EQ(got, want);
    } else {
      EXPECT_NEAR(got, want, 1e-6f * (1 + std::abs(want)));
    }
  }

  static std::vector<float> RandomLogits(uint32_t seed, size_t vocab, float spread, int steps) {
    std::minstd_rand random(seed);
    std::vector<float> logits(vocab);
    for (float& logit : logits)
      logit = std::round((static_cast<float>(random() % 65536) / 65536.0f - 0.5f) * static_cast<float>(steps)) *
              spread / static_cast<float>(steps);  // few steps: many ties
    return logits;
  }

  std::unique_ptr<Backend> backend_;
};

INSTANTIATE_TEST_SUITE_P(Reversed, SamplingCudaTest, testing::Bool());

TEST_P(SamplingCudaTest, EveryFilterGivesTheTokenOfTheDefinition) {
  for (const size_t vocab : {size_t{1}, size_t{7}, size_t{513}, size_t{3001}}) {
    for (const int steps : {4, 100, 60000}) {
      std::vector<SamplingParams> params;
      for (const uint64_t seed : {1, 2}) {
        params.push_back({.temperature = 0, .seed = seed});
        params.push_back({.temperature = 1, .seed = seed});
        params.push_back({.temperature = 0.7f, .top_k = 5, .seed = seed});
        params.push_back({.temperature = 1.5f, .top_p = 0.6f, .seed = seed});
        params.push_back({.temperature = 1, .top_k = 40, .top_p = 0.9f, .min_p = 0.05f, .seed = seed});
        params.push_back({.temperature = 1e-30f, .top_p = 1e-6f, .seed = seed});
        params.push_back({.temperature = 100, .top_k = 5000, .min_p = 1, .seed = seed});
      }
      std::vector<std::vector<float>> logits;
      std::vector<SampleRow> rows;
      for (size_t i = 0; i < params.size(); ++i) {
        logits.push_back(RandomLogits(static_cast<uint32_t>(vocab + i), vocab, 12, steps));
        SampleRow& row = rows.emplace_back();
        row.params = &params[i];
        row.position = 17 * i;
        row.wants_logprob = i % 2 == 0;
        row.num_top = static_cast<int32_t>(i % 5);
      }
      ExpectAsRef(logits, rows);
    }
  }
}

TEST_P(SamplingCudaTest, WhatARequestAddsToLogitsIsThatOfTheDefinition) {
  constexpr size_t kVocab = 700;
  const std::vector<uint32_t> allowed = {699, 3, 5, 31, 32, 64, 100}, banned = {3, 100};
  const std::vector<TokenBias> bias = {{5, 7.5f}, {31, -100}, {3, 50}};
  const std::vector<TokenCount> counts = {{5, 2}, {64, 0}, {32, 9}, {1, 1}};
  std::vector<SamplingParams> params = {
      {.temperature = 0, .repetition_penalty = 1.7f},
      {.temperature = 1, .frequency_penalty = 0.5f, .presence_penalty = -2, .seed = 9},
      {.temperature = 0.9f, .top_p = 0.8f, .repetition_penalty = 1e-30f, .seed = 4},
      {.temperature = 1, .seed = 11}};
  for (uint32_t seed = 0; seed < 3; ++seed) {
    std::vector<std::vector<float>> logits;
    std::vector<SampleRow> rows;
    for (size_t i = 0; i < 8; ++i) {
      logits.push_back(RandomLogits(seed * 100 + static_cast<uint32_t>(i), kVocab, 10, 3000));
      SampleRow& row = rows.emplace_back();
      row.params = &params[i % 4];
      row.position = i;
      if (i < 4) row.allowed = allowed;
      if (i % 2 == 0) row.banned = banned;
      if (i % 3 != 0) row.bias = bias;
      if (row.params->HasPenalties()) row.counts = counts;
      row.wants_logprob = true;
      row.num_top = 3;
    }
    ExpectAsRef(logits, rows);
  }
}

// What the step before drew counts, whether the row knows of its token or not; and a row may draw where another one's
// token of the step before was.
TEST_P(SamplingCudaTest, PenaltiesCountTheTokenOfTheStepBefore) {
  constexpr size_t kVocab = 300, kRows = 6;
  const SamplingParams params{.temperature = 1,
                              .top_k = 4,
                              .repetition_penalty = 1.3f,
                              .frequency_penalty = 0.7f,
                              .presence_penalty = 0.2f,
                              .seed = 3};
  std::vector<std::vector<float>> logits;
  for (uint32_t r = 0; r < kRows; ++r) logits.push_back(RandomLogits(r % 2, kVocab, 4, 3000));
  std::vector<SampleRow> rows(kRows);
  for (size_t r = 0; r < kRows; ++r) {
    rows[r].params = &params;
    rows[r].position = r;
    rows[r].wants_logprob = true;
    rows[r].num_top = 2;
  }
  const std::vector<SampledToken> before = ExpectAsRef(logits, rows);
  std::vector<std::vector<TokenCount>> counts(kRows);
  for (uint32_t step = 0; step < 3; ++step) {
    for (uint32_t r = 0; r < kRows; ++r) {
      rows[r].drawn = (r + step) % kRows;
      rows[r].position = 100 * step + r;
      counts[r] = {{7, 1}, {9, 0}};
      if (r % 2 == 0) counts[r].push_back({before[(r + step) % kRows].id, 2});
      rows[r].counts = counts[r];
    }
    ExpectAsRef(logits, rows, before.data());
    for (SampleRow& row : rows) row.drawn.reset();
    if (step == 2) break;
    // The same tokens again for the next round.
    for (size_t r = 0; r < kRows; ++r) {
      rows[r].position = r;
      rows[r].counts = {};
    }
    ExpectAsRef(logits, rows);
  }
}

// All that a vocabulary allows, in every row: more than staging holds at once.
TEST_P(SamplingCudaTest, RowsMayNameTheWholeVocabularyAllAtOnce) {
  constexpr uint32_t kVocab = 4000;
  std::vector<uint32_t> most, all;
  std::vector<TokenBias> bias;
  std::vector<TokenCount> counts;
  for (uint32_t id = 0; id < kVocab; ++id) {
    all.push_back(id);
    if (id % 7 != 3) most.push_back(id);
    bias.push_back({id, static_cast<float>(id * 31 % 11) - 5});
    counts.push_back({id, id * 17 % 5});
  }
  const SamplingParams params{.temperature = 1, .top_p = 0.9f, .frequency_penalty = 0.5f, .seed = 3};
  std::vector<std::vector<float>> logits;
  std::vector<SampleRow> rows;
  for (uint32_t i = 0; i < 16; ++i) {
    logits.push_back(RandomLogits(i, kVocab, 12, 500));
    SampleRow& row = rows.emplace_back();
    row.params = &params;
    row.position = i;
    row.bias = bias;
    row.counts = counts;
    row.wants_logprob = true;
    row.num_top = 2;
    if (i % 3 == 0) row.allowed = i % 2 == 0 ? all : most;
    if (i % 3 == 1) row.banned = most;
    if (i == 11) row.banned = all;  // nothing is left: not finite
  }
  ExpectAsRef(logits, rows);
}

TEST_P(SamplingCudaTest, RowsThatAreNotFiniteSaySo) {
  const SamplingParams params{.temperature = 1};
  SampleRow row;
  row.params = &params;
  row.wants_logprob = true;
  row.num_top = 2;
  SampleRow banned = row;
  const std::vector<uint32_t> all = {0, 1, 2};
  banned.banned = all;
  ExpectAsRef(
      {{0, NAN, 1}, {0, kInfinity, 1}, {-kInfinity, -kInfinity, -kInfinity}, {-kInfinity, 2, -kInfinity}, {1, 2, 3}},
      {row, row, row, row, banned});
}

TEST_P(SamplingCudaTest, ScoresAreThoseOfTheDefinition) {
  constexpr int64_t kVocab = 900, kRows = 3;
  std::vector<float> logits;
  for (uint32_t r = 0; r < kRows; ++r) {
    const std::vector<float> row = RandomLogits(r, kVocab, 9, 500);
    logits.insert(logits.end(), row.begin(), row.end());
  }
  logits[2 * kVocab + 5] = NAN;
  const std::vector<uint32_t> targets = {0, 899, 3};
  std::vector<float> want(kRows), got(kRows);
  std::vector<TokenLogprob> want_top(kRows * 4), got_top(kRows * 4);
  const Tensor tensor = Tensor::Contiguous(logits.data(), DType::kFloat32, kRows, kVocab);
  RefScore({tensor, targets.data(), 4, want.data(), want_top.data()});
  ASSERT_TRUE(backend_->BeginStep().ok());
  backend_->Score({tensor, targets.data(), 4, got.data(), got_top.data()});
  ASSERT_TRUE(backend_->EndStep().ok() && backend_->AwaitStep().ok());
  for (int64_t r = 0; r < kRows; ++r) {
    ExpectNear(got[r], want[r]);
    for (int64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(got_top[r * 4 + i].id, want_top[r * 4 + i].id);
      ExpectNear(got_top[r * 4 + i].logprob, want_top[r * 4 + i].logprob);
    }
  }
}

}  // namespace
}  // namespace quire
