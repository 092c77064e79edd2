// A model of each kind of layer that the CUDA backend takes, on the emulated device, beside `ref`: windows, soft caps,
// biases, norms of queries and keys, ALiBi, parallel and post-norm blocks. What it does not take is refused by name.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/engine/engine_testing.h"
#include "tests/kernels/cuda/emulated_backend.h"

namespace quire {
namespace {

constexpr uint32_t kVocab = 250;  // ids that every model has

class CudaFamilies : public testing::TestWithParam<std::string> {
 protected:
  // What a model answers to prompts around block borders and windows: the log-probabilities of each prompt's tokens and
  // of what follows.
  std::map<RequestId, Output> Run(std::unique_ptr<Backend> backend, DType dtype) {
    EngineOptions options = FamilyModelOptions(GetParam(), BackendKind::kRef);
    options.dtype = dtype;
    options.kv_cache_bytes = uint64_t{4} << 20;
    options.max_num_batched_tokens = 64;
    options.max_num_seqs = 4;
    options.max_model_len = 176;
    options.lazy_graphs = backend->has_graphs();
    absl::StatusOr<LoadedModel> model = LoadModel(options, std::move(backend));
    refusal_ = model.status();
    if (!model.ok()) return {};
    std::vector<std::shared_ptr<const Request>> requests;
    for (const size_t length : {17, 70}) {
      auto request = MakeRequest(requests.size(), RandomPrompt(length, length, kVocab), 3);
      request->num_logprobs = 2;
      request->num_prompt_logprobs = 1;
      requests.push_back(std::move(request));
    }
    return RunAll(model->plan.scheduler, std::move(model->runner), requests);
  }

  // Of the prompts, and of tokens until the first that differs, which must be a near tie.
  static void ExpectNear(const Output& found, const Output& expected, DType dtype) {
    const auto tolerance = [&](float want) { return dtype == DType::kFloat32 ? 1e-3f : 0.1f + 0.03f * std::abs(want); };
    ASSERT_EQ(found.prompt_logprobs.size(), expected.prompt_logprobs.size());
    for (size_t i = 0; i < expected.prompt_logprobs.size(); ++i) {
      const float want = expected.prompt_logprobs[i];
      ASSERT_NEAR(found.prompt_logprobs[i], want, tolerance(want)) << DTypeName(dtype) << " position " << i + 1;
    }
    for (size_t i = 0; i < expected.tokens.size(); ++i) {
      const float want = expected.logprobs[i];
      if (found.tokens[i] != expected.tokens[i]) {
        EXPECT_LE(expected.top[2 * i].logprob - expected.top[2 * i + 1].logprob, 2 * tolerance(want)) << "token " << i;
        return;
      }
      EXPECT_NEAR(found.logprobs[i], want, tolerance(want)) << DTypeName(dtype) << " token " << i;
    }
  }

  absl::Status refusal_;
};

TEST_P(CudaFamilies, SaysWhatRefSaysOrIsRefusedByName) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const std::map<RequestId, Output> found = Run(MakeEmulatedCudaBackend({.lazy = true}, false), dtype);
    const std::string& name = GetParam();
    const bool is_refused = name.starts_with("deepseek") || name.starts_with("gpt-oss") ||
                            name.starts_with("mixtral") || name.starts_with("qwen3-moe");
    if (is_refused) {
      EXPECT_EQ(refusal_.code(), absl::StatusCode::kUnimplemented) << refusal_;
      EXPECT_TRUE(refusal_.message().find("backend cuda: ") == 0) << refusal_;
      return;
    }
    ASSERT_TRUE(refusal_.ok()) << refusal_;
    const std::map<RequestId, Output> expected = Run(MakeBackend(BackendKind::kRef), dtype);
    for (const auto& [id, output] : expected) ExpectNear(found.at(id), output, dtype);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, CudaFamilies,
                         testing::Values("deepseek-v3", "falcon-40b", "falcon-rw", "gemma2", "gemma3", "gpt-oss",
                                         "gpt2", "llama-gqa4-bias", "llama3-tied", "mistral-window", "mixtral",
                                         "opt-350m", "phi3-partial", "qwen2-window", "qwen3", "qwen3-moe"),
                         [](const auto& info) { return ModelTestName(info.param); });

}  // namespace
}  // namespace quire
