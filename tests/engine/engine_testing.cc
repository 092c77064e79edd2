#include "tests/engine/engine_testing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <utility>

#include "kernels/check.h"
#include "kvcache/block_hash.h"

namespace quire {
namespace {

bool SameTop(const std::vector<TokenLogprob>& a, const std::vector<TokenLogprob>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const TokenLogprob& x, const TokenLogprob& y) {
    return x.id == y.id && x.logprob == y.logprob;
  });
}

}  // namespace

bool operator==(const Output& a, const Output& b) {
  return a.tokens == b.tokens && a.logprobs == b.logprobs && SameTop(a.top, b.top) &&
         a.prompt_logprobs == b.prompt_logprobs && SameTop(a.prompt_top, b.prompt_top) && a.finish == b.finish &&
         a.ending == b.ending;
}

void CollectingSink::OnEvents(std::vector<TokenEvent>& events) {
  const std::lock_guard lock(mutex_);
  for (const TokenEvent& event : events) {
    Output& output = outputs_[OutputKey(event.request_id, event.index)];
    switch (event.kind) {
      case EventKind::kStarted:
        ++output.num_started;
        output.cached_tokens = event.cached_tokens;
        break;
      case EventKind::kPromptLogprobs:
        Check(event.first_position == output.prompt_logprobs.size() + 1, "prompt log-probabilities out of order");
        output.prompt_logprobs.insert(output.prompt_logprobs.end(), event.logprobs().begin(), event.logprobs().end());
        output.prompt_top.insert(output.prompt_top.end(), event.top().begin(), event.top().end());
        break;
      case EventKind::kToken:
        output.tokens.push_back(event.token_id);
        output.logprobs.push_back(event.logprob);
        output.top.insert(output.top.end(), event.top().begin(), event.top().end());
        output.finish = event.finish;
        output.num_endings += event.finish != FinishReason::kNone ? 1 : 0;
        break;
      case EventKind::kStopped:
        output.finish = event.finish;
        ++output.num_endings;
        break;
      case EventKind::kEnded:
        output.ending = event.ending;
        ++output.num_endings;
        break;
    }
  }
  changed_.notify_all();
}

void CollectingSink::OnEngineFailure(const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  failures_.push_back(status);
  changed_.notify_all();
}

void CollectingSink::WaitUntil(const std::function<bool(const std::map<RequestId, Output>&)>& condition) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return condition(outputs_); });
}

Output CollectingSink::Wait(RequestId key) {
  WaitUntil([&](const auto& outputs) { return outputs.contains(key) && outputs.at(key).num_endings > 0; });
  return outputs().at(key);
}

std::map<RequestId, Output> CollectingSink::outputs() {
  const std::lock_guard lock(mutex_);
  return outputs_;
}

std::vector<absl::Status> CollectingSink::failures() {
  const std::lock_guard lock(mutex_);
  return failures_;
}

std::shared_ptr<Request> MakeRequest(RequestId id, std::vector<uint32_t> prompt, uint32_t max_tokens) {
  auto request = std::make_shared<Request>();
  request->id = id;
  request->prompt = std::move(prompt);
  request->sampling.temperature = 0;
  request->max_tokens = max_tokens;
  request->use_prefix_cache = false;
  return request;
}

std::shared_ptr<Request> MakeCachedRequest(RequestId id, std::vector<uint32_t> prompt, uint32_t max_tokens,
                                           int32_t block_size) {
  auto request = MakeRequest(id, std::move(prompt), max_tokens);
  request->use_prefix_cache = true;
  request->root_hash = RootHash("");
  request->prompt_hashes = HashBlocks("", request->prompt, block_size);
  return request;
}

std::string ModelTestName(std::string model) {
  std::replace(model.begin(), model.end(), '-', '_');
  return model;
}

std::vector<uint32_t> RandomPrompt(uint64_t seed, size_t length, uint32_t vocab_size) {
  std::vector<uint32_t> prompt(length);
  for (uint32_t& id : prompt) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;  // Knuth's MMIX generator
    id = static_cast<uint32_t>((seed >> 33) % vocab_size);
  }
  return prompt;
}

std::map<RequestId, Output> RunAll(const SchedulerOptions& options, std::unique_ptr<ModelRunner> runner,
                                   const std::vector<std::shared_ptr<const Request>>& requests, SchedulerStats* stats) {
  CollectingSink sink;
  Engine engine(options, std::numeric_limits<int32_t>::max(), std::numeric_limits<int64_t>::max(), std::move(runner),
                &sink);
  for (const std::shared_ptr<const Request>& request : requests)
    Check(engine.Submit(request).ok(), "a request is refused");
  for (const std::shared_ptr<const Request>& request : requests) {
    for (uint32_t i = 0; i < request->num_outputs; ++i) sink.Wait(OutputKey(request->id, i));
  }
  engine.Shutdown();
  if (stats != nullptr) *stats = engine.snapshot().scheduler;
  return sink.outputs();
}

std::map<RequestId, Output> RunAlone(const EngineOptions& options,
                                     const std::vector<std::shared_ptr<const Request>>& requests) {
  absl::StatusOr<LoadedModel> model = LoadModel(options);
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return {};
  CollectingSink sink;
  Engine engine(model->plan.scheduler, 1000, 1'000'000, std::move(model->runner), &sink);
  for (const auto& request : requests) {
    EXPECT_TRUE(engine.Submit(request).ok());
    sink.Wait(request->id);
  }
  return sink.outputs();
}

void ExpectSame(const std::map<RequestId, Output>& got, const std::map<RequestId, Output>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (const auto& [id, output] : want) {
    EXPECT_EQ(output.ending, Ending::kNone);
    EXPECT_FALSE(output.tokens.empty());
    EXPECT_TRUE(got.at(id) == output) << "request " << id << " differs";
  }
}

std::unique_ptr<Backend> MakeBackend(BackendKind kind) {
  BackendOptions options;
  options.kind = kind;
  options.num_threads = kind == BackendKind::kCpu ? 1 : 0;
  return *CreateBackend(options);
}

nlohmann::json Llama3Json() {
  return nlohmann::json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "hidden_act": "silu", "hidden_size": 4096,
    "intermediate_size": 14336, "max_position_embeddings": 8192, "model_type": "llama", "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_scaling": null,
    "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 128256})");
}

ModelConfig ConfigOf(const nlohmann::json& json) {
  absl::StatusOr<ModelConfig> config = ModelConfigFromJson(json, "config.json");
  Check(config.ok(), std::string(config.status().message()).c_str());
  return *std::move(config);
}

std::string BundledModel() { return QUIRE_SOURCE_DIR "/deploy/models/tales-5m"; }

std::vector<std::string> FamilyModels() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(FamilyModel(""))) {
    const std::string name = entry.path().filename();
    if (std::filesystem::exists(entry.path() / "config.json")) names.push_back(name);
    if (std::filesystem::exists(entry.path() / "model.gguf")) names.push_back(name + "/model.gguf");
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string FamilyModel(const std::string& name) { return QUIRE_SOURCE_DIR "/tests/oracle/fixtures/families/" + name; }

EngineOptions FamilyModelOptions(const std::string& name, BackendKind kind) {
  EngineOptions options;
  options.model = FamilyModel(name);
  options.backend.kind = kind;
  options.backend.num_threads = kind == BackendKind::kCpu ? 1 : 0;
  options.kv_cache_bytes = uint64_t{32} << 20;
  options.max_model_len = 700;
  options.max_num_batched_tokens = 512;
  return options;
}

EngineOptions BundledModelOptions(BackendKind kind) {
  EngineOptions options;
  options.model = BundledModel();
  options.backend.kind = kind;
  options.kv_cache_bytes = uint64_t{16} << 20;
  options.max_num_batched_tokens = 512;
  return options;
}

}  // namespace quire
