// The bundled model through the whole CUDA backend, on the emulated device and, where there is one, on the real device:
// the same tokens as on `cpu`, alone and in company, with the cache so small that sequences drive each other out; what
// memory it takes; and what a device that fails does to those who wait.

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "kvcache/block_hash.h"
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

  // Without what the emulation takes long for: each graph made, and everything run once, before the first request.
  EngineOptions Soon(EngineOptions options) const {
    options.lazy_graphs = !is_device();
    return options;
  }

  std::unique_ptr<Backend> Cuda(bool deterministic, const cuda::EmulationOptions& emulation = {},
                                bool by_wgmma = false) const {
    if (!is_device()) return MakeEmulatedCudaBackend(emulation, deterministic, nullptr, by_wgmma);
    BackendOptions options;
    options.kind = BackendKind::kCuda;
    options.deterministic = deterministic;
    options.prefill_attention = by_wgmma ? PrefillAttention::kWgmma : PrefillAttention::kMma;
    absl::StatusOr<std::unique_ptr<Backend>> backend = CreateBackend(options);
    EXPECT_TRUE(backend.ok()) << backend.status();
    return *std::move(backend);
  }

  void ExpectSameOutputsOfAnySchedule(bool by_wgmma) const;
};

INSTANTIATE_TEST_SUITE_P(Where, CudaModelTest, testing::Values(Where::kEmulated, Where::kDevice),
                         [](const auto& info) { return info.param == Where::kDevice ? "Device" : "Emulated"; });

// Without a run-ahead: that of the backend.
std::map<RequestId, Output> RunOn(std::unique_ptr<Backend> backend, const EngineOptions& options,
                                  const Requests& requests, std::optional<int32_t> run_ahead = std::nullopt,
                                  SchedulerStats* stats = nullptr) {
  absl::StatusOr<LoadedModel> model = LoadModel(options, std::move(backend));
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return {};
  model->plan.scheduler.run_ahead = run_ahead.value_or(model->plan.scheduler.run_ahead);
  return RunAll(model->plan.scheduler, std::move(model->runner), requests, stats);
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
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    EngineOptions options = Options();
    options.dtype = dtype;
    const std::map<RequestId, Output> expected = RunOn(MakeBackend(BackendKind::kCpu), options, Mixed());
    const std::map<RequestId, Output> found = RunOn(Cuda(false, {.lazy = true}), Soon(options), Mixed());
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
    const std::map<RequestId, Output> found = RunOn(Cuda(false, {.lazy = true}), Soon(options), Mixed());
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
  const std::map<RequestId, Output> found = RunOn(Cuda(false), Soon(options), {request});
  EXPECT_EQ(found.at(0).tokens.size(), 2u);
  EXPECT_EQ(found.at(OutputKey(0, 15)).tokens.size(), 2u);
  EXPECT_EQ(found.at(0).prompt_logprobs.size(), 29u);
}

// A graph for each number of rows up to 8; decodes of 1 to 4 sequences fill up to them. Whether graphs are made before
// the first step, when they are needed, or not at all changes no bit of a request that runs alone.
class CudaGraphTest : public testing::TestWithParam<bool> {};

INSTANTIATE_TEST_SUITE_P(Deterministic, CudaGraphTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Deterministic" : "Fast"; });

TEST_P(CudaGraphTest, GraphsChangeNothing) {
  const bool deterministic = GetParam();
  EngineOptions options = Options();
  options.dtype = DType::kFloat32;
  Requests alone = {Mixed()[kSampled]};
  const auto with = [&](bool eager, bool lazy, const Requests& requests, int* num_replays) {
    EngineOptions chosen = options;
    chosen.enforce_eager = eager;
    chosen.lazy_graphs = lazy;
    cuda::EmulatedDevice* device = nullptr;
    absl::StatusOr<LoadedModel> model =
        LoadModel(chosen, MakeEmulatedCudaBackend({.lazy = true}, deterministic, &device));
    EXPECT_TRUE(model.ok()) << model.status();
    EXPECT_EQ(model->plan.graph_rows, eager ? std::vector<int32_t>() : (std::vector<int32_t>{1, 2, 4, 8}));
    const int num_waits = device->num_waits();
    CollectingSink sink;
    Engine engine(model->plan.scheduler, 100, 100'000, std::move(model->runner), &sink);
    for (const auto& request : requests) EXPECT_TRUE(engine.Submit(request).ok());
    for (const auto& request : requests) sink.Wait(request->id);
    engine.Shutdown();
    *num_replays = device->num_replays();
    // Nothing in a step waits for the device, but for the one graph that a sequence alone needs when it needs it.
    EXPECT_EQ(device->num_waits() - num_waits, lazy ? 1 : 0);
    return sink.outputs();
  };
  int replays_before = 0, replays_lazy = 0, replays_eager = 0;
  const auto want = with(/*eager=*/true, /*lazy=*/false, alone, &replays_eager);
  EXPECT_TRUE(with(false, false, alone, &replays_before).at(kSampled) == want.at(kSampled));
  EXPECT_TRUE(with(false, true, alone, &replays_lazy).at(kSampled) == want.at(kSampled));
  EXPECT_EQ(replays_eager, 0);
  EXPECT_EQ(replays_lazy, 4);  // of 5 tokens the prompt brings the first
  EXPECT_EQ(replays_before, 4 + replays_lazy);

  int num_replays = 0;
  const auto expected = RunOn(MakeBackend(BackendKind::kCpu), options, Mixed());
  const auto found = with(false, false, Mixed(), &num_replays);
  EXPECT_GT(num_replays, 4 + 3);
  for (const auto& [id, output] : expected) ExpectSameTokens(found.at(id), output, 1e-4f, id);
  if (!deterministic) return;
  // Law 5: filling rows are company.
  const auto eager = with(true, false, Mixed(), &num_replays);
  for (const auto& [id, output] : eager) EXPECT_TRUE(found.at(id) == output) << id;
}

// Code is loaded and algorithms are chosen before ready: no request waits for it, and it takes no memory later.
TEST(CudaWarmUpTest, NothingRunsForTheFirstTimeAfterReady) {
  for (const bool deterministic : {false, true}) {
    for (const auto quantization : {KvQuantization::kNone, KvQuantization::kFp8E4M3}) {
      EngineOptions options = Options();
      options.max_num_batched_tokens = 24;
      options.kv_quantization = quantization;
      cuda::EmulatedDevice* device = nullptr;
      absl::StatusOr<LoadedModel> model = LoadModel(options, MakeEmulatedCudaBackend({}, deterministic, &device));
      ASSERT_TRUE(model.ok()) << model.status();
      const size_t num_seen = device->num_seen();
      CollectingSink sink;
      Engine engine(model->plan.scheduler, 100, 100'000, std::move(model->runner), &sink);
      const Requests requests = Mixed();
      for (const auto& request : requests) EXPECT_TRUE(engine.Submit(request).ok());
      for (const auto& request : requests) sink.Wait(request->id);
      engine.Shutdown();
      EXPECT_GT(num_seen, 10u);
      EXPECT_EQ(device->num_seen(), num_seen);
    }
  }
}

// The draw after a token that the host has not seen counts it all the same: with penalties, steps and tokens are those
// of a scheduler that waits.
TEST_P(CudaModelTest, PenaltiesCountTheTokenThatIsUnderWay) {
  EngineOptions options = Options();
  options.dtype = DType::kFloat32;
  Requests requests;
  for (RequestId id = 0; id < 3; ++id) {
    auto request = MakeRequest(id, RandomPrompt(id + 1, 3 + 9 * id, kVocab), 24);
    request->num_logprobs = 2;
    request->sampling = {.temperature = id == 0 ? 0.0f : 0.7f, .top_k = 8, .seed = 7 + id};
    // Of few tokens, which come again and again.
    for (uint32_t token = 100; token < 106; ++token) request->allowed_ids.push_back(token);
    if (id != 1) request->sampling.frequency_penalty = 0.9f;
    if (id != 0) request->sampling.repetition_penalty = 1.5f;
    request->sampling.presence_penalty = 0.3f;
    requests.push_back(std::move(request));
  }
  const auto waits = RunOn(Cuda(true, {.lazy = true}), Soon(options), requests, /*run_ahead=*/0);
  const auto ahead = RunOn(Cuda(true, {.lazy = true}), Soon(options), requests);
  for (const auto& [id, output] : waits) EXPECT_TRUE(ahead.at(id) == output) << id;
}

void CudaModelTest::ExpectSameOutputsOfAnySchedule(bool by_wgmma) const {
  const std::map<RequestId, Output> whole =
      RunOn(Cuda(true, {.reversed = true}, by_wgmma), Soon(Options()), Mixed(), /*run_ahead=*/0);
  EngineOptions tight = Options();
  tight.max_num_batched_tokens = 24;
  tight.max_num_seqs = 3;
  tight.block_size = 8;
  tight.max_model_len = 80;
  tight.kv_cache_bytes = 1536 * 96;  // 1536 bytes per token in bfloat16
  const std::map<RequestId, Output> parts = RunOn(Cuda(true, {.lazy = true}, by_wgmma), Soon(tight), Mixed());
  for (const auto& [id, output] : whole) EXPECT_TRUE(parts.at(id) == output) << id;
}

// Of the device's kernels, law 4: chunk borders, law 5: company, and running ahead, change no bit.
TEST_P(CudaModelTest, DeterministicOutputsDoNotDependOnTheSchedule) {
  ExpectSameOutputsOfAnySchedule(/*by_wgmma=*/false);
}

TEST_P(CudaModelTest, DeterministicOutputsByWgmmaDoNotDependOnTheSchedule) {
  if (is_device() && !DeviceHasWgmma()) GTEST_SKIP() << "the device has no wgmma";
  ExpectSameOutputsOfAnySchedule(/*by_wgmma=*/true);
}

// Law 6: what is computed again after a preemption has the same bits.
TEST_P(CudaModelTest, DeterministicOutputsDoNotDependOnPreemptions) {
  Requests growing;
  for (const size_t length : {1, 8, 15}) {
    const RequestId id = growing.size();
    auto request = MakeRequest(id, RandomPrompt(id + 1, length, kVocab), 40);
    if (id == 1) request->sampling = {.temperature = 0.8f, .top_k = 50, .seed = 1000 + id};
    request->num_logprobs = 2;
    growing.push_back(std::move(request));
  }
  EngineOptions options = Options();
  options.lazy_graphs = true;
  options.block_size = 8;
  const std::map<RequestId, Output> free = RunOn(Cuda(true), options, growing);
  options.max_model_len = 64;
  options.kv_cache_bytes = 1536 * 64;  // of one sequence: 1536 bytes per token in bfloat16
  SchedulerStats stats;
  const std::map<RequestId, Output> tight = RunOn(Cuda(true, {.lazy = true}), options, growing, std::nullopt, &stats);
  EXPECT_GT(stats.preemptions, 0);
  for (const auto& [id, output] : free) EXPECT_TRUE(tight.at(id) == output) << id;
}

// Law 7: what is found in the prefix cache has the bits that would be computed.
TEST_P(CudaModelTest, DeterministicOutputsDoNotDependOnPrefixHits) {
  EngineOptions options = Options();
  options.max_num_seqs = 1;  // one after another
  Requests requests;
  for (RequestId id = 0; id < 2; ++id) {
    auto request = MakeCachedRequest(id, RandomPrompt(99, 70, kVocab), 6, options.block_size);
    request->num_logprobs = 2;
    requests.push_back(std::move(request));
  }
  const std::map<RequestId, Output> outputs = RunOn(Cuda(true, {.lazy = true}), options, requests);
  EXPECT_EQ(outputs.at(0).cached_tokens, 0u);
  EXPECT_EQ(outputs.at(1).cached_tokens, 64u);
  EXPECT_TRUE(outputs.at(0) == outputs.at(1));
}

// Laws 3 to 8 at once, with prefix hits, cancels and pauses, and no block held in the end: a thousand requests on a
// device.
TEST_P(CudaModelTest, MixedTrafficIsWhatEachRequestIsAlone) {
  const auto load = [&](EngineOptions options, int) {
    options.backend.deterministic = true;
    return LoadModel(Soon(options), Cuda(true, {.lazy = true}));
  };
  if (is_device()) {
    soak::Soak(load, soak::kLarge, 1000);
  } else {
    soak::Soak(load, soak::kSmall, 4);
  }
}

// What the backend asks for before ready is what was planned, within a hundredth, with and without graphs, of elements
// and of records; afterwards it asks for nothing more.
TEST(CudaMemoryTest, EveryByteIsAskedForBeforeReadyAsPlanned) {
  for (const bool eager : {false, true}) {
    EngineOptions options = Options();
    options.kv_quantization = eager ? KvQuantization::kFp8E4M3 : KvQuantization::kNone;
    options.enforce_eager = eager;
    cuda::EmulatedDevice* device = nullptr;
    absl::StatusOr<LoadedModel> model = LoadModel(options, MakeEmulatedCudaBackend({}, false, &device));
    ASSERT_TRUE(model.ok()) << model.status();
    const MemoryPlan& plan = model->plan;
    const auto planned = static_cast<double>(plan.weight_bytes + plan.kv_bytes + plan.workspace_bytes);
    EXPECT_NEAR(static_cast<double>(device->allocated_bytes()), planned, 0.01 * planned);
    const int before_ready = device->num_allocations();
    CollectingSink sink;
    Engine engine(plan.scheduler, 100, 100'000, std::move(model->runner), &sink);
    const Requests requests = Mixed();
    for (const auto& request : requests) ASSERT_TRUE(engine.Submit(request).ok());
    for (const auto& request : requests) sink.Wait(request->id);
    engine.Shutdown();
    EXPECT_EQ(device->num_allocations(), before_ready);
  }
}

// Looks, whenever a step is launched, whether the device still has the one before to do.
class OverlapRunner : public ModelRunner {
 public:
  OverlapRunner(std::unique_ptr<ModelRunner> runner, const cuda::EmulatedDevice* device, int* num_steps,
                int* num_overlapped)
      : runner_(std::move(runner)), device_(device), num_steps_(num_steps), num_overlapped_(num_overlapped) {}

  absl::Status Launch(const Batch& batch) override {
    ++*num_steps_;
    if (!device_->is_idle()) ++*num_overlapped_;
    return runner_->Launch(batch);
  }
  absl::StatusOr<const StepResult*> Collect() override { return runner_->Collect(); }

 private:
  std::unique_ptr<ModelRunner> runner_;
  const cuda::EmulatedDevice* device_;
  int *num_steps_, *num_overlapped_;
};

TEST(CudaOverlapTest, TheNextStepIsLaunchedBeforeTheDeviceHasDoneTheLast) {
  for (const bool eager : {false, true}) {
    EngineOptions options = Options();
    (eager ? options.enforce_eager : options.lazy_graphs) = true;
    cuda::EmulatedDevice* device = nullptr;
    absl::StatusOr<LoadedModel> model = LoadModel(options, MakeEmulatedCudaBackend({.lazy = true}, false, &device));
    ASSERT_TRUE(model.ok()) << model.status();
    int num_steps = 0, num_overlapped = 0;
    auto request = MakeRequest(0, RandomPrompt(1, 200, kVocab), 12);  // three chunks, then decodes
    request->sampling.frequency_penalty = 0.5f;
    RunAll(model->plan.scheduler,
           std::make_unique<OverlapRunner>(std::move(model->runner), device, &num_steps, &num_overlapped), {request});
    EXPECT_EQ(num_steps, 3 + 11);
    EXPECT_EQ(num_overlapped, num_steps - 1);
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
  const auto planned = static_cast<double>(plan.weight_bytes + plan.kv_bytes + plan.workspace_bytes + plan.graph_bytes);
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

// A runner whose device fails before a step is launched, or while it runs.
class FailingRunner : public ModelRunner {
 public:
  FailingRunner(std::unique_ptr<ModelRunner> runner, cuda::EmulatedDevice* device, int good_steps, bool is_late)
      : runner_(std::move(runner)), device_(device), good_steps_(good_steps), is_late_(is_late) {}

  absl::Status Launch(const Batch& batch) override {
    const absl::Status error = absl::InternalError("CUDA: a step: an illegal memory access");
    const bool fails = good_steps_-- == 0;
    if (fails && !is_late_) device_->Fail(error);
    const absl::Status status = runner_->Launch(batch);
    if (fails && is_late_) device_->Fail(error);
    return status;
  }
  absl::StatusOr<const StepResult*> Collect() override { return runner_->Collect(); }

 private:
  std::unique_ptr<ModelRunner> runner_;
  cuda::EmulatedDevice* device_;
  int good_steps_;
  const bool is_late_;
};

TEST(CudaFailureTest, AnErrorOfTheDeviceEndsEveryLiveRequestOnce) {
  for (const bool is_late : {false, true}) {
    cuda::EmulatedDevice* device = nullptr;
    std::unique_ptr<Backend> backend = MakeEmulatedCudaBackend({.lazy = true}, false, &device);
    EngineOptions options = Options();
    options.lazy_graphs = true;
    absl::StatusOr<LoadedModel> model = LoadModel(options, std::move(backend));
    ASSERT_TRUE(model.ok()) << model.status();
    CollectingSink sink;
    Engine engine(model->plan.scheduler, 100, 100'000,
                  std::make_unique<FailingRunner>(std::move(model->runner), device, 3, is_late), &sink);
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
}

// Wherever in loading it is.
TEST(CudaFailureTest, AtStartWhatTheDeviceRefusesIsOneLine) {
  EngineOptions options = Options();
  options.lazy_graphs = true;
  uint64_t needed = 0;
  const auto load = [&](uint64_t capacity, const absl::Status& failure) {
    cuda::EmulatedDevice* device = nullptr;
    std::unique_ptr<Backend> backend = MakeEmulatedCudaBackend({.lazy = true}, false, &device);
    device->SetCapacity(capacity);
    if (!failure.ok()) device->Fail(failure);
    const absl::StatusOr<LoadedModel> model = LoadModel(options, std::move(backend));
    if (model.ok()) needed = device->allocated_bytes();
    return model.status();
  };
  ASSERT_TRUE(load(uint64_t{1} << 40, absl::OkStatus()).ok());
  for (const uint64_t capacity : {uint64_t{0}, needed / 2, needed - needed / 8, needed - needed / 16, needed - 1}) {
    const absl::Status status = load(capacity, absl::OkStatus());
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    for (const char* said : {"device memory: needed ", " free ", "a smaller --gpu-memory-utilization"})
      EXPECT_TRUE(absl::StrContains(status.message(), said)) << status;
    EXPECT_FALSE(absl::StrContains(status.message(), '\n')) << status;
  }
  const absl::Status failed = load(uint64_t{1} << 40, absl::InternalError("CUDA: a copy: unspecified launch failure"));
  EXPECT_EQ(failed.message(), "CUDA: a copy: unspecified launch failure");
}

}  // namespace
}  // namespace quire
