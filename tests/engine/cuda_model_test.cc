// The bundled model through the whole CUDA backend, on the emulated device and, where there is one, on the real device:
// the same tokens as on `cpu`, alone and in company, with the cache so small that sequences drive each other out; what
// memory it takes; and what a device that fails does to those who wait.

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "tests/engine/engine_testing.h"
#include "tests/engine/soak.h"
#include "tests/kernels/cuda/emulated_backend.h"
#include "tests/kernels/cuda/needs_device.h"

namespace quire {
namespace {

constexpr uint32_t kVocab = 4096;
constexpr RequestId kSampled = 3;

using Requests = std::vector<std::shared_ptr<const Request>>;

EngineOptions Options() {
  EngineOptions options = BundledModelOptions(BackendKind::kCpu);
  options.kv_cache_bytes = uint64_t{2} << 20;
  options.max_num_batched_tokens = 96;
  options.max_num_seqs = 8;
  options.max_model_len = 256;
  return options;
}

Requests Mixed() {
  Requests requests;
  const std::vector<size_t> lengths = {1, 17, 40, 70};
  for (size_t i = 0; i < lengths.size(); ++i) {
    auto request = MakeRequest(i, RandomPrompt(i + 1, lengths[i], kVocab), 5);
    request->num_logprobs = 2;
    if (i % 2 == 0) request->num_prompt_logprobs = 1;
    if (i == kSampled) request->sampling = {.temperature = 0.8f, .top_k = 50, .top_p = 0.95f, .seed = 1003};
    requests.push_back(std::move(request));
  }
  return requests;
}

enum class Where { kEmulated, kDevice };

class CudaModelTest : public testing::TestWithParam<Where> {
 protected:
  void SetUp() override {
    if (is_device()) QUIRE_NEEDS_CUDA_DEVICE();
  }
  bool is_device() const { return GetParam() == Where::kDevice; }

  std::unique_ptr<Backend> Cuda(bool deterministic, const cuda::EmulationOptions& emulation = {}) const {
    if (!is_device()) return MakeEmulatedCudaBackend(emulation, deterministic);
    BackendOptions options;
    options.kind = BackendKind::kCuda;
    options.deterministic = deterministic;
    absl::StatusOr<std::unique_ptr<Backend>> backend = CreateBackend(options);
    EXPECT_TRUE(backend.ok()) << backend.status();
    return *std::move(backend);
  }
};

INSTANTIATE_TEST_SUITE_P(Where, CudaModelTest, testing::Values(Where::kEmulated, Where::kDevice),
                         [](const auto& info) { return info.param == Where::kDevice ? "Device" : "Emulated"; });

std::map<RequestId, Output> RunOn(std::unique_ptr<Backend> backend, const EngineOptions& options,
                                  const Requests& requests) {
  absl::StatusOr<LoadedModel> model = LoadModel(options, std::move(backend));
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return {};
  return RunAll(model->plan.scheduler, std::move(model->runner), requests);
}

// Compares up to the first token at which the two best of `expected` are so close that rounding decides.
void ExpectSameTokens(const Output& found, const Output& expected, float tolerance, RequestId id) {
  ASSERT_EQ(found.tokens.size(), expected.tokens.size());
  for (size_t i = 0; i < expected.tokens.size(); ++i) {
    const float margin = expected.top[2 * i].logprob - expected.top[2 * i + 1].logprob;
    if (found.tokens[i] != expected.tokens[i]) {
      EXPECT_LE(margin, tolerance) << "request " << id << " token " << i;
      return;
    }
    EXPECT_NEAR(found.logprobs[i], expected.logprobs[i], tolerance) << "request " << id << " token " << i;
  }
}

TEST_P(CudaModelTest, TheBundledModelSaysWhatItSaysOnCpu) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    EngineOptions options = Options();
    options.dtype = dtype;
    const std::map<RequestId, Output> expected = RunOn(MakeBackend(BackendKind::kCpu), options, Mixed());
    const std::map<RequestId, Output> found = RunOn(Cuda(false), options, Mixed());
    ASSERT_EQ(found.size(), expected.size());
    const float tolerance = dtype == DType::kFloat32 ? 1e-4f : 0.1f;
    for (const auto& [id, output] : expected) {
      if (id != kSampled || dtype == DType::kFloat32) ExpectSameTokens(found.at(id), output, tolerance, id);
      ASSERT_EQ(found.at(id).prompt_logprobs.size(), output.prompt_logprobs.size());
      for (size_t i = 0; i < output.prompt_logprobs.size(); ++i)
        EXPECT_NEAR(found.at(id).prompt_logprobs[i], output.prompt_logprobs[i], tolerance) << id;
    }
  }
}

// Beside `cpu` with the same records, but for those that another rounding of K or V tips over.
TEST_P(CudaModelTest, AQuantizedCacheSaysWhatItSaysOnCpu) {
  for (const KvQuantization quantization : {KvQuantization::kFp8E4M3, KvQuantization::kInt8, KvQuantization::kInt4}) {
    EngineOptions options = Options();
    options.dtype = DType::kFloat32;
    options.kv_quantization = quantization;
    const std::map<RequestId, Output> expected = RunOn(MakeBackend(BackendKind::kCpu), options, Mixed());
    const std::map<RequestId, Output> found = RunOn(Cuda(false), options, Mixed());
    ASSERT_EQ(found.size(), expected.size());
    for (const auto& [id, output] : expected) {
      if (id != kSampled) ExpectSameTokens(found.at(id), output, 0.2f, id);
    }
  }
}

// Every row of the head in a slice of its own, the outputs of one request and prompts' scores too.
TEST_P(CudaModelTest, OneSequenceAtATimeMayScoreItsPromptAndDrawManyOutputs) {
  EngineOptions options = Options();
  options.max_num_seqs = 1;
  auto request = MakeRequest(0, RandomPrompt(5, 30, kVocab), 2);
  request->num_prompt_logprobs = 1;
  request->num_outputs = 16;
  const std::map<RequestId, Output> found = RunOn(Cuda(false), options, {request});
  EXPECT_EQ(found.at(0).tokens.size(), 2u);
  EXPECT_EQ(found.at(OutputKey(0, 15)).tokens.size(), 2u);
  EXPECT_EQ(found.at(0).prompt_logprobs.size(), 29u);
}

// Laws 4 to 7 of the device's kernels: chunks, company and preemptions change no bit.
TEST_P(CudaModelTest, DeterministicOutputsDoNotDependOnTheSchedule) {
  const std::map<RequestId, Output> whole = RunOn(Cuda(true, {.reversed = true}), Options(), Mixed());
  EngineOptions tight = Options();
  tight.max_num_batched_tokens = 24;
  tight.max_num_seqs = 3;
  tight.block_size = 8;
  tight.max_model_len = 80;
  tight.kv_cache_bytes = 1536 * 96;  // 1536 bytes per token in bfloat16
  const std::map<RequestId, Output> parts = RunOn(Cuda(true), tight, Mixed());
  for (const auto& [id, output] : whole) EXPECT_TRUE(parts.at(id) == output) << id;
}

// Laws 3 to 8 at once, with prefix hits, cancels and pauses, and no block held in the end: a thousand requests on a
// device.
TEST_P(CudaModelTest, MixedTrafficIsWhatEachRequestIsAlone) {
  const auto load = [&](EngineOptions options, int) {
    options.backend.deterministic = true;
    return LoadModel(options, Cuda(true));
  };
  if (is_device()) {
    soak::Soak(load, soak::kLarge, 1000);
  } else {
    soak::Soak(load, soak::kSmall, 4);
  }
}

// The plan is what the device gives, within a hundredth; afterwards nothing more is taken, whatever runs.
TEST(CudaMemoryTest, TheDeviceGivesWhatWasPlannedAndNothingMoreLater) {
  QUIRE_NEEDS_CUDA_DEVICE();
  const auto free_bytes = [] {
    BackendOptions options;
    options.kind = BackendKind::kCuda;
    return static_cast<double>(*(*CreateBackend(options))->FreeBytes());
  };
  (void)free_bytes();  // what the libraries take once
  EngineOptions options = Options();
  options.backend.kind = BackendKind::kCuda;
  options.kv_cache_bytes = uint64_t{16} << 30;
  const double before = free_bytes();
  absl::StatusOr<LoadedModel> model = LoadModel(options);
  ASSERT_TRUE(model.ok()) << model.status();
  const MemoryPlan plan = model->plan;
  const auto planned = static_cast<double>(plan.weight_bytes + plan.kv_bytes + plan.workspace_bytes);
  const double after_start = free_bytes();
  EXPECT_NEAR(before - after_start, planned, 0.01 * planned);
  CollectingSink sink;
  Engine engine(plan.scheduler, 1000, int64_t{1} << 30, std::move(model->runner), &sink);
  for (RequestId id = 0; id < 200; ++id)
    ASSERT_TRUE(engine.Submit(MakeRequest(id, RandomPrompt(id, 1 + id % 180, kVocab), 40)).ok());
  for (RequestId id = 0; id < 200; ++id) sink.Wait(id);
  EXPECT_NEAR(free_bytes(), after_start, 0.01 * planned);
  engine.Shutdown();
}

// A runner whose device fails at a step.
class FailingRunner : public ModelRunner {
 public:
  FailingRunner(std::unique_ptr<ModelRunner> runner, cuda::EmulatedDevice* device, int good_steps)
      : runner_(std::move(runner)), device_(device), good_steps_(good_steps) {}

  absl::Status Launch(const Batch& batch) override {
    if (good_steps_-- == 0) device_->Fail(absl::InternalError("CUDA: a step: an illegal memory access"));
    return runner_->Launch(batch);
  }
  absl::StatusOr<const StepResult*> Collect() override { return runner_->Collect(); }

 private:
  std::unique_ptr<ModelRunner> runner_;
  cuda::EmulatedDevice* device_;
  int good_steps_;
};

TEST(CudaFailureTest, AnErrorOfTheDeviceEndsEveryLiveRequestOnce) {
  cuda::EmulatedDevice* device = nullptr;
  std::unique_ptr<Backend> backend = MakeEmulatedCudaBackend({}, false, &device);
  absl::StatusOr<LoadedModel> model = LoadModel(Options(), std::move(backend));
  ASSERT_TRUE(model.ok()) << model.status();
  CollectingSink sink;
  Engine engine(model->plan.scheduler, 100, 100'000,
                std::make_unique<FailingRunner>(std::move(model->runner), device, 3), &sink);
  const Requests requests = Mixed();
  for (const auto& request : requests) ASSERT_TRUE(engine.Submit(request).ok());
  for (const auto& request : requests) sink.Wait(request->id);
  engine.Shutdown();
  for (const auto& [id, output] : sink.outputs()) {
    EXPECT_EQ(output.num_endings, 1) << id;
    EXPECT_EQ(output.ending, Ending::kEngineFailed) << id;
  }
  ASSERT_EQ(sink.failures().size(), 1u);
  EXPECT_EQ(sink.failures()[0].message(), "CUDA: a step: an illegal memory access");
}

}  // namespace
}  // namespace quire
