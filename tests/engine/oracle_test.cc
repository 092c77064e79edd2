// quire beside transformers, on the bundled model: tests/oracle/make_fixtures.py has recorded what the latter computes.

#include <openssl/sha.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
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

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string Sha256Hex(const std::string& bytes) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest);
  std::string hex;
  for (const unsigned char byte : digest) {
    char text[3];
    std::snprintf(text, sizeof(text), "%02x", byte);
    hex += text;
  }
  return hex;
}

class Oracle : public testing::Test {
 protected:
  void SetUp() override {
    fixture_ = nlohmann::json::parse(ReadFile(QUIRE_SOURCE_DIR "/tests/oracle/fixtures/tales-5m.json"));
    ASSERT_EQ(fixture_["weights_sha256"], Sha256Hex(ReadFile(BundledModel() + "/model.safetensors")))
        << "the fixture is of other weights: run tests/oracle/make_fixtures.py deploy/models/tales-5m";
  }

  size_t num_records() const { return fixture_["records"].size(); }

  std::vector<float> Floats(size_t record, const char* key) const {
    return fixture_["records"][record][key].get<std::vector<float>>();
  }
  std::vector<uint32_t> Ids(size_t record, const char* key) const {
    return fixture_["records"][record][key].get<std::vector<uint32_t>>();
  }

  // What quire makes of all prompts: `num_greedy` tokens of each, at most those recorded.
  std::map<RequestId, Output> Run(BackendKind kind, DType dtype, uint32_t num_greedy,
                                  KvQuantization quantization = KvQuantization::kNone) const {
    EngineOptions options = BundledModelOptions(kind);
    options.dtype = dtype;
    options.kv_quantization = quantization;
    absl::StatusOr<LoadedModel> model = LoadModel(options);
    EXPECT_TRUE(model.ok()) << model.status();
    if (!model.ok()) return {};
    std::vector<std::shared_ptr<const Request>> requests;
    for (size_t i = 0; i < num_records(); ++i) {
      auto request = MakeRequest(i, Ids(i, "prompt"), num_greedy);
      request->num_logprobs = 0;
      request->num_prompt_logprobs = 0;
      requests.push_back(std::move(request));
    }
    return RunAll(model->plan.scheduler, std::move(model->runner), requests);
  }

  // Largest error over its tolerance of all prompt positions, and of greedy tokens as far as they are the oracle's.
  template <typename Tolerance>
  double WorstError(const std::map<RequestId, Output>& outputs, Tolerance tolerance) const {
    double worst = 0;
    for (const auto& [i, output] : outputs) {
      const std::vector<float> want = Floats(i, "prompt_logprobs"), want_greedy = Floats(i, "greedy_logprobs");
      const std::vector<uint32_t> tokens = Ids(i, "greedy");
      EXPECT_EQ(output.prompt_logprobs.size(), want.size());
      for (size_t j = 0; j < want.size(); ++j) {
        worst = std::max(worst, std::abs(double{output.prompt_logprobs[j]} - want[j]) / tolerance(j + 1));
      }
      for (size_t j = 0; j < output.tokens.size() && output.tokens[j] == tokens[j]; ++j) {
        worst = std::max(worst, std::abs(double{output.logprobs[j]} - want_greedy[j]) / tolerance(want.size() + 1 + j));
      }
    }
    return worst;
  }

  // Mean distance of the prompts' log-probabilities from the oracle's.
  double MeanDistance(const std::map<RequestId, Output>& outputs) const {
    double sum = 0;
    size_t count = 0;
    for (const auto& [i, output] : outputs) {
      const std::vector<float> want = Floats(i, "prompt_logprobs");
      for (size_t j = 0; j < want.size(); ++j) sum += std::abs(double{output.prompt_logprobs[j]} - want[j]);
      count += want.size();
    }
    return sum / static_cast<double>(count);
  }

  void ExpectGreedyTokens(const std::map<RequestId, Output>& outputs) const {
    constexpr float kTie = 1e-2f;  // between the oracle's best two: closer ones may come out either way
    for (const auto& [i, output] : outputs) {
      const std::vector<uint32_t> tokens = Ids(i, "greedy");
      const std::vector<float> gaps = Floats(i, "greedy_gaps");
      for (size_t j = 0; j < output.tokens.size(); ++j) {
        if (output.tokens[j] == tokens[j]) continue;
        EXPECT_LT(gaps[j], kTie) << "prompt " << i << ", token " << j;
        break;  // from here on the texts differ
      }
    }
  }

  nlohmann::json fixture_;
};

TEST_F(Oracle, RefInFloat32IsWithinRoundingOfTransformers) {
  const auto outputs = Run(BackendKind::kRef, DType::kFloat32, /*num_greedy=*/8);
  const double worst =
      WorstError(outputs, [](size_t position) { return std::max(1e-4, 1e-6 * static_cast<double>(position)); });
  EXPECT_LE(worst, 1.0);
  RecordProperty("worst_error_over_tolerance", std::to_string(worst));
  ExpectGreedyTokens(outputs);
}

TEST_F(Oracle, CpuInFloat32IsWithinAThousandthOfTransformers) {
  const auto outputs = Run(BackendKind::kCpu, DType::kFloat32, /*num_greedy=*/64);
  const double worst = WorstError(outputs, [](size_t) { return 1e-3; });
  EXPECT_LE(worst, 1.0);
  RecordProperty("worst_error_over_tolerance", std::to_string(worst));
  ExpectGreedyTokens(outputs);
}

TEST_F(Oracle, CpuInBFloat16IsNoFurtherThanTransformersOwnBFloat16) {
  const auto outputs = Run(BackendKind::kCpu, DType::kBFloat16, /*num_greedy=*/1);
  const double mean = MeanDistance(outputs), allowed = 2 * fixture_["bfloat16_mean_distance"].get<double>() + 1e-3;
  EXPECT_LE(mean, allowed);
  RecordProperty("mean_distance", std::to_string(mean));
  RecordProperty("allowed", std::to_string(allowed));
}

// In float32 but for the cache, so that what is seen is the cache's doing. The bounds are twice what was
// measured.
TEST_F(Oracle, QuantizedCachesStayNearTransformers) {
  struct Bound {
    KvQuantization quantization;
    double mean_distance;
  };
  for (const Bound& bound : {Bound{KvQuantization::kInt8, 0.0125}, Bound{KvQuantization::kFp8E4M3, 0.06},
                             Bound{KvQuantization::kInt4, 0.22}}) {
    const std::string name(KvTypeName(DType::kBFloat16, bound.quantization));
    for (const BackendKind kind : {BackendKind::kRef, BackendKind::kCpu}) {
      if (kind == BackendKind::kRef && bound.quantization != KvQuantization::kInt8) continue;  // it takes long
      const auto outputs =
          Run(kind, DType::kFloat32, /*num_greedy=*/kind == BackendKind::kRef ? 1 : 32, bound.quantization);
      const double mean = MeanDistance(outputs);
      EXPECT_LE(mean, bound.mean_distance) << name;
      RecordProperty(name + (kind == BackendKind::kRef ? "_ref" : "_cpu"), std::to_string(mean));
      for (const auto& [i, output] : outputs) {
        EXPECT_EQ(output.tokens.size(), kind == BackendKind::kRef ? 1 : std::min<size_t>(32, Ids(i, "greedy").size()));
        EXPECT_EQ(output.ending, Ending::kNone);
      }
    }
  }
}

}  // namespace
}  // namespace quire
