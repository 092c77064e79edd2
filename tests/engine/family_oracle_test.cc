// quire beside transformers, on a tiny random model of every family: tests/oracle/make_family_fixtures.py has made the
// models and recorded what transformers computes on them.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/engine/engine_testing.h"

namespace quire {
namespace {

class FamilyOracle : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::filesystem::path model = FamilyModel(GetParam());
    std::ifstream file((model.extension() == ".gguf" ? model.parent_path() : model) / "oracle.json");
    oracle_ = nlohmann::json::parse(std::string{std::istreambuf_iterator<char>(file), {}});
    vocab_ = static_cast<uint32_t>(LoadModelConfig(FamilyModel(GetParam()))->vocab_size);
  }

  size_t num_records() const { return oracle_["records"].size(); }
  size_t PromptLen(size_t record) const { return oracle_["prompt_lengths"][record]; }
  // From position 1 on: of the prompt, then of what is generated.
  std::vector<float> Logprobs(size_t record) const { return oracle_["records"][record]["logprobs"]; }
  std::vector<uint32_t> Greedy(size_t record) const { return oracle_["records"][record]["greedy"]; }
  // How far apart the best two of each generated token are.
  std::vector<float> Gaps(size_t record) const { return oracle_["records"][record]["gaps"]; }

  // What quire makes of all prompts, `num_tokens` more of each; what transformers generated may belong to the prompts.
  std::map<RequestId, Output> Run(BackendKind kind, DType dtype, uint32_t num_tokens,
                                  bool with_generated = false) const {
    EngineOptions options = FamilyModelOptions(GetParam(), kind);
    options.dtype = dtype;
    absl::StatusOr<LoadedModel> model = LoadModel(options);
    EXPECT_TRUE(model.ok()) << model.status();
    if (!model.ok()) return {};
    std::vector<std::shared_ptr<const Request>> requests;
    for (size_t i = 0; i < num_records(); ++i) {
      std::vector<uint32_t> prompt = RandomPrompt(i + 1, PromptLen(i), vocab_);
      const std::vector<uint32_t> generated = Greedy(i);
      if (with_generated) prompt.insert(prompt.end(), generated.begin(), generated.end());
      auto request = MakeRequest(i, prompt, num_tokens);
      request->num_logprobs = 0;
      request->num_prompt_logprobs = 0;
      requests.push_back(std::move(request));
    }
    return RunAll(model->plan.scheduler, std::move(model->runner), requests);
  }

  // Holds all positions against the oracle, those of generated tokens as far as the tokens are the oracle's. Returns
  // the mean difference.
  template <typename Tolerance>
  double Compare(const std::map<RequestId, Output>& outputs, Tolerance tolerance) const {
    double sum = 0, worst = 0;
    size_t count = 0;
    std::string where;
    for (const auto& [i, output] : outputs) {
      const std::vector<float> want = Logprobs(i);
      std::vector<float> got = output.prompt_logprobs;
      const bool with_generated = got.size() == want.size();
      const size_t num_same = with_generated ? 0 : NumSameTokens(i, output.tokens);
      if (!with_generated) {
        EXPECT_EQ(got.size() + 1, PromptLen(i));
      }
      got.insert(got.end(), output.logprobs.begin(), output.logprobs.begin() + static_cast<int64_t>(num_same));
      for (size_t j = 0; j < got.size(); ++j) {
        const double difference = std::abs(double{got[j]} - want[j]);
        sum += difference;
        ++count;
        if (difference / tolerance(j + 1) <= worst) continue;
        worst = difference / tolerance(j + 1);
        where = "prompt of " + std::to_string(PromptLen(i)) + ", position " + std::to_string(j + 1) + ": got " +
                std::to_string(got[j]) + ", want " + std::to_string(want[j]);
      }
    }
    EXPECT_LE(worst, 1.0) << where;
    RecordProperty("worst_over_tolerance", std::to_string(worst));
    return sum / static_cast<double>(count);
  }

  // Leading tokens that are the oracle's; the first other one must be a near tie.
  size_t NumSameTokens(size_t record, const std::vector<uint32_t>& tokens) const {
    constexpr float kTie = 1e-2f;  // between the oracle's best two: closer ones may come out either way
    const std::vector<uint32_t> want = Greedy(record);
    const auto first = std::mismatch(tokens.begin(), tokens.end(), want.begin()).first - tokens.begin();
    const auto num_same = static_cast<size_t>(first);
    if (is_exact_ && num_same < tokens.size()) {
      EXPECT_LT(Gaps(record)[num_same], kTie) << "prompt of " << PromptLen(record) << ", token " << num_same;
    }
    return num_same;
  }

  nlohmann::json oracle_;
  uint32_t vocab_ = 0;
  bool is_exact_ = true;  // float32
};

TEST_P(FamilyOracle, RefInFloat32IsWithinRoundingOfTransformers) {
  Compare(Run(BackendKind::kRef, DType::kFloat32, 64),
          [](size_t position) { return std::max(1e-4, 1e-6 * static_cast<double>(position)); });
}

TEST_P(FamilyOracle, CpuInFloat32IsWithinAThousandthOfTransformers) {
  Compare(Run(BackendKind::kCpu, DType::kFloat32, 64), [](size_t) { return 1e-3; });
}

// Over the tokens of prompts and those that transformers generated in float32, as its own bfloat16 was measured.
TEST_P(FamilyOracle, CpuInBFloat16IsNoFurtherThanTransformersOwnBFloat16) {
  is_exact_ = false;
  const double mean =
      Compare(Run(BackendKind::kCpu, DType::kBFloat16, 1, /*with_generated=*/true), [](size_t) { return 1e9; });
  const double allowed = 2 * oracle_["bfloat16_mean_distance"].get<double>() + 1e-3;
  EXPECT_LE(mean, allowed);
  RecordProperty("mean_distance", std::to_string(mean));
  RecordProperty("allowed", std::to_string(allowed));
}

INSTANTIATE_TEST_SUITE_P(Models, FamilyOracle, testing::ValuesIn(FamilyModels()), [](const auto& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == '-' || c == '/' || c == '.'; }, '_');
  return name;
});

}  // namespace
}  // namespace quire
