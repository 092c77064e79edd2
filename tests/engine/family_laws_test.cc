// The laws of invisibility (ARCHITECTURE §5) bitwise, over a model of each kind of layer: windows, latents, experts,
// sinks, ALiBi, soft caps, parallel and post-norm blocks. model_laws_test.cc holds the bundled model to them and has
// the poisoned cache.

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/load_model.h"
#include "gtest/gtest.h"
#include "kvcache/block_hash.h"
#include "tests/engine/engine_testing.h"

namespace quire {
namespace {

using Requests = std::vector<std::shared_ptr<const Request>>;

constexpr uint32_t kVocab = 250;  // ids that every model has
constexpr int32_t kMaxModelLen = 176;

class FamilyLaws : public testing::TestWithParam<std::string> {
 protected:
  EngineOptions Options() const {
    EngineOptions options = FamilyModelOptions(GetParam(), BackendKind::kCpu);
    options.dtype = DType::kBFloat16;
    options.max_model_len = kMaxModelLen;
    options.enable_prefix_caching = false;
    options.backend.num_threads = 2;
    return options;
  }

  // Lengths around block borders and windows, greedy and sampled.
  Requests Company() const {
    Requests requests;
    for (const size_t length : {1, 15, 17, 40, 65, 130}) {
      const RequestId id = requests.size();
      auto request = MakeRequest(id, RandomPrompt(id + 1, length, kVocab), 24);
      request->num_logprobs = 2;
      if (id % 2 == 0) request->num_prompt_logprobs = 1;
      if (id % 3 == 0) request->sampling = {.temperature = 0.8f, .top_k = 50, .seed = 1000 + id};
      requests.push_back(std::move(request));
    }
    return requests;
  }

  std::map<RequestId, Output> Run(const EngineOptions& options, const Requests& requests,
                                  SchedulerStats* stats = nullptr) const {
    absl::StatusOr<LoadedModel> model = LoadModel(options);
    EXPECT_TRUE(model.ok()) << model.status();
    if (!model.ok()) return {};
    return RunAll(model->plan.scheduler, std::move(model->runner), requests, stats);
  }
};

TEST_P(FamilyLaws, CompanyAndChunksAndWorkersAndBlocksAreInvisible) {
  const auto alone = RunAlone(Options(), Company());
  ExpectSame(Run(Options(), Company()), alone);
  EngineOptions mixed = Options();
  mixed.max_num_seqs = 4;
  mixed.max_num_batched_tokens = 13;
  mixed.block_size = 8;
  mixed.backend.num_threads = 1;
  ExpectSame(Run(mixed, Company()), alone);
}

TEST_P(FamilyLaws, PreemptionIsInvisible) {
  Requests growing;
  for (const size_t length : {1, 8, 15, 33, 40, 41}) {
    const RequestId id = growing.size();
    growing.push_back(MakeRequest(id, RandomPrompt(id + 1, length, kVocab), 120));
  }
  const auto free = Run(Options(), growing);
  EngineOptions tight = Options();
  tight.block_size = 8;
  tight.max_num_batched_tokens = 48;
  const auto config = LoadModelConfig(tight.model);
  const auto plan = MakeMemoryPlan(*config, tight, *MakeBackend(BackendKind::kRef));
  ASSERT_TRUE(plan.ok()) << plan.status();
  tight.kv_cache_bytes = static_cast<uint64_t>(plan->kv.BlocksFor(kMaxModelLen)) * plan->kv.BytesPerBlock();
  SchedulerStats stats;
  ExpectSame(Run(tight, growing, &stats), free);
  // Where all layers slide, a sequence stops growing at its window.
  const bool grows = plan->kv.groups.size() > 1 || plan->kv.groups[0].kind != KvKind::kWindow;
  EXPECT_TRUE(!grows || stats.preemptions > 0);
}

TEST_P(FamilyLaws, APrefixHitIsInvisible) {
  EngineOptions options = Options();
  options.enable_prefix_caching = true;
  Requests requests;
  for (RequestId id = 0; id < 2; ++id) {
    auto request = MakeCachedRequest(id, RandomPrompt(99, 150, kVocab), 8, options.block_size);
    request->num_logprobs = 2;
    requests.push_back(std::move(request));
  }
  const auto outputs = RunAlone(options, requests);
  EXPECT_EQ(outputs.at(0).cached_tokens, 0u);
  EXPECT_GE(outputs.at(1).cached_tokens, 144u);
  EXPECT_TRUE(outputs.at(0) == outputs.at(1));
}

INSTANTIATE_TEST_SUITE_P(Models, FamilyLaws,
                         testing::Values("mistral-window", "mixtral", "qwen3-moe", "gemma2", "gemma3", "phi3-longrope",
                                         "deepseek-v3", "gpt-oss", "falcon-40b", "falcon-rw", "gpt2", "opt-350m"),
                         [](const auto& info) { return ModelTestName(info.param); });

}  // namespace
}  // namespace quire
