// The laws of invisibility (ARCHITECTURE §5) bitwise, with the bundled model on both backends: whatever the schedule,
// the same tokens and the same log-probabilities, with a quantised cache too. And law 8: a step reads only slots that
// its sequences own.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/backend_model_runner.h"
#include "gtest/gtest.h"
#include "kvcache/block_hash.h"
#include "tests/engine/engine_testing.h"

namespace quire {
namespace {

constexpr uint32_t kVocab = 4096;

// Passes batches on, after it has overwritten with NaN every slot of the cache that no sequence of the batch has
// computed, or that its window has passed. It holds as long as every running sequence is in every batch, and nothing is
// kept for the prefix cache.
class PoisoningRunner : public ModelRunner {
 public:
  explicit PoisoningRunner(std::unique_ptr<ModelRunner> runner) : runner_(std::move(runner)) {}

  absl::Status Launch(const Batch& batch) override {
    const KvCache& cache = dynamic_cast<const BackendModelRunner&>(*runner_).kv_cache();
    const int32_t block_size = cache.spec().block_size;
    const size_t num_slots = size_t(cache.num_blocks()) * block_size;
    // A block is of one group, and layers of other groups have the same bytes: what anybody owns is spared everywhere.
    std::vector<bool> owned(num_slots, false);
    for (const Chunk& chunk : batch.chunks) {
      for (int32_t group = 0; group < chunk.sequence->num_groups(); ++group) {
        const BlockTable& table = chunk.sequence->block_table(group);
        for (int32_t position = table.num_absent() * block_size; position < chunk.begin; ++position) {
          owned[size_t(table[position / block_size]) * block_size + position % block_size] = true;
        }
      }
    }
    for (int32_t layer = 0; layer < cache.spec().NumLayers(); ++layer) Poison(cache.LayerView(layer), owned);
    return runner_->Launch(batch);
  }
  absl::StatusOr<const StepResult*> Collect() override { return runner_->Collect(); }

 private:
  static void Poison(const PagedKv& kv, const std::vector<bool>& owned) {
    constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
    for (size_t slot = 0; slot < owned.size(); ++slot) {
      if (owned[slot]) continue;
      const auto block = static_cast<BlockId>(slot / kv.block_size);
      const auto offset = static_cast<int32_t>(slot % kv.block_size);
      for (int32_t head = 0; head < kv.kv_heads; ++head) {
        if (kv.quantized()) {  // a scale of all ones is NaN
          const int64_t record = kv.RecordBegin(block, head, offset);
          std::memset(static_cast<char*>(kv.k) + record, 0xff, kv.RecordBytes());
          std::memset(static_cast<char*>(kv.v) + record, 0xff, kv.RecordBytes());
          continue;
        }
        for (int32_t dim = 0; dim < kv.head_dim; ++dim) {
          StoreFloat(kv.k, kv.dtype, kv.KIndex(block, head, offset, dim), kNaN);
          StoreFloat(kv.v, kv.dtype, kv.VIndex(block, head, offset, dim), kNaN);
        }
      }
    }
  }

  std::unique_ptr<ModelRunner> runner_;
};

using Requests = std::vector<std::shared_ptr<const Request>>;

struct Case {
  BackendKind backend;
  KvQuantization quantization = KvQuantization::kNone;
};

class ModelLaws : public testing::TestWithParam<Case> {
 protected:
  // Short on `ref`, whose loops are plain.
  bool is_ref() const { return GetParam().backend == BackendKind::kRef; }

  EngineOptions Options() const {
    EngineOptions options = BundledModelOptions(GetParam().backend);
    options.kv_quantization = GetParam().quantization;
    options.kv_cache_bytes = uint64_t{2} << 20;
    options.max_num_batched_tokens = 256;
    options.enable_prefix_caching = false;
    if (!is_ref()) options.backend.num_threads = 2;
    return options;
  }

  // A cache so small that sequences drive each other out.
  EngineOptions Tight() const {
    EngineOptions options = Options();
    options.block_size = 8;
    options.max_num_batched_tokens = 48;
    options.max_model_len = is_ref() ? 40 : 256;
    // 6 layers of 2 heads of 32, K and V: 1536 bytes per token in bfloat16.
    const int64_t token_bytes = 6 * 2 * 2 * KvHeadBytes(DType::kBFloat16, options.kv_quantization, 32);
    options.kv_cache_bytes = static_cast<uint64_t>(token_bytes) * (is_ref() ? 48 : 256);
    return options;
  }

  // A mix of lengths around block borders, greedy and sampled, with log-probabilities.
  Requests Company() const {
    const std::vector<size_t> lengths =
        is_ref() ? std::vector<size_t>{1, 9, 15, 17} : std::vector<size_t>{1, 15, 16, 17, 40, 65, 130, 200};
    Requests requests;
    for (size_t i = 0; i < lengths.size(); ++i) {
      auto request = MakeRequest(i, RandomPrompt(i + 1, lengths[i], kVocab), is_ref() ? 20 : 24);
      request->num_logprobs = 3;
      if (i % 2 == 0) request->num_prompt_logprobs = 2;
      if (i % 3 == 0)
        request->sampling = {.temperature = 0.8f, .top_k = 50, .top_p = 0.95f, .min_p = 0.0f, .seed = 1000 + i};
      requests.push_back(std::move(request));
    }
    return requests;
  }

  std::map<RequestId, Output> Run(const EngineOptions& options, const Requests& requests, bool poison = false,
                                  SchedulerStats* stats = nullptr, int32_t run_ahead = 0) const {
    absl::StatusOr<LoadedModel> model = LoadModel(options);
    EXPECT_TRUE(model.ok()) << model.status();
    if (!model.ok()) return {};
    model->plan.scheduler.run_ahead = run_ahead;
    if (poison) model->runner = std::make_unique<PoisoningRunner>(std::move(model->runner));
    return RunAll(model->plan.scheduler, std::move(model->runner), requests, stats);
  }
};

TEST_P(ModelLaws, CompanyAndChunksAndWorkersAndBlocksAreInvisible) {
  const Requests requests = Company();
  const auto alone = RunAlone(Options(), requests);
  EngineOptions mixed = Options();  // three at a time, slices of three rows in the head
  mixed.max_num_seqs = 3;
  mixed.max_num_batched_tokens = 13;
  mixed.block_size = 8;
  ExpectSame(Run(mixed, requests), alone);
  if (is_ref()) return;

  ExpectSame(Run(Options(), requests), alone);
  EngineOptions chunks = Options();
  chunks.max_num_batched_tokens = 37;
  chunks.backend.num_threads = 1;
  ExpectSame(Run(chunks, requests), alone);
  EngineOptions blocks = Options();
  blocks.block_size = 64;
  blocks.backend.num_threads = 3;
  ExpectSame(Run(blocks, requests), alone);
}

TEST_P(ModelLaws, PreemptionIsInvisibleAndNoStepReadsWhatItDoesNotOwn) {
  const Requests requests = Company();
  SchedulerStats stats;
  ExpectSame(Run(Tight(), requests, /*poison=*/true, &stats), Run(Options(), requests));
  EXPECT_GT(stats.preemptions, 0u);  // so blocks changed hands
}

// A step that is made before the host has seen the tokens of the last one: also where sequences preempt each other,
// have several outputs, penalties, or end with a stop id that the step after it had to run in vain.
TEST_P(ModelLaws, RunningAheadIsInvisible) {
  Requests requests = Company();
  auto many = MakeRequest(100, RandomPrompt(31, 21, kVocab), 12);
  many->sampling.temperature = 1.0f;
  many->num_outputs = 3;
  auto penalized = MakeRequest(101, RandomPrompt(7, 5, kVocab), 12);
  penalized->sampling.repetition_penalty = 1.3f;
  penalized->sampling.frequency_penalty = 0.5f;
  auto stopped = MakeRequest(102, requests[1]->prompt, 20);
  stopped->stop_ids = {RunAlone(Options(), {requests[1]}).at(1).tokens[3]};
  requests.insert(requests.end(), {many, penalized, stopped});
  for (const bool tight : {false, true}) {
    const EngineOptions options = tight ? Tight() : Options();
    SchedulerStats waiting, ahead;
    const auto want = Run(options, requests, /*poison=*/false, &waiting);
    ExpectSame(Run(options, requests, /*poison=*/false, &ahead, /*run_ahead=*/1), want);
    EXPECT_EQ(want.at(102).finish, FinishReason::kStop);
    EXPECT_GT(ahead.discarded_tokens, 0u);
    EXPECT_EQ(waiting.discarded_tokens, 0u);
    EXPECT_EQ(ahead.computed_tokens, ahead.sampled_tokens + ahead.recomputed_tokens + ahead.discarded_tokens);
    EXPECT_TRUE(!tight || ahead.preemptions > 0);
  }
}

TEST_P(ModelLaws, APrefixHitIsInvisible) {
  const std::vector<uint32_t> prompt = RandomPrompt(99, is_ref() ? 40 : 150, kVocab);
  EngineOptions options = Options();
  options.enable_prefix_caching = true;
  absl::StatusOr<LoadedModel> model = LoadModel(options);
  ASSERT_TRUE(model.ok()) << model.status();
  CollectingSink sink;
  Engine engine(model->plan.scheduler, 1000, 1'000'000, std::move(model->runner), &sink);
  std::vector<Output> outputs;
  for (RequestId id = 0; id < 2; ++id) {
    auto request = MakeCachedRequest(id, prompt, 8, options.block_size);
    request->num_logprobs = 5;
    ASSERT_TRUE(engine.Submit(request).ok());
    outputs.push_back(sink.Wait(id));
  }
  EXPECT_EQ(outputs[0].cached_tokens, 0u);
  EXPECT_EQ(outputs[1].cached_tokens, (prompt.size() - 1) / options.block_size * options.block_size);
  EXPECT_TRUE(outputs[0] == outputs[1]);
}

TEST_P(ModelLaws, OutputsOfOnePromptAreThoseOfRequestsWithTheFollowingSeeds) {
  constexpr uint32_t kOutputs = 4;
  const std::vector<uint32_t> prompt = RandomPrompt(31, 21, kVocab);  // its last block is not full
  const auto request = [&](RequestId id, uint32_t num_outputs, uint64_t seed) {
    auto request = MakeRequest(id, prompt, is_ref() ? 12 : 40);
    request->sampling = {.temperature = 1.0f, .top_k = 0, .top_p = 1.0f, .min_p = 0.0f, .seed = seed};
    request->num_logprobs = 2;
    request->num_outputs = num_outputs;
    return request;
  };
  Requests apart;
  for (uint32_t i = 0; i < kOutputs; ++i) apart.push_back(request(i, 1, 7 + i));
  const auto alone = RunAlone(Options(), apart);
  EXPECT_NE(alone.at(0).tokens, alone.at(1).tokens);

  Requests together = {request(100, kOutputs, 7)};
  for (const bool tight : {false, true}) {
    SchedulerStats stats;
    const auto got = Run(tight ? Tight() : Options(), together, /*poison=*/tight, &stats);
    for (uint32_t i = 0; i < kOutputs; ++i) {
      EXPECT_TRUE(got.at(OutputKey(100, i)) == alone.at(i)) << "output " << i;
    }
    EXPECT_EQ(got.at(100).num_started, 1);
    uint64_t prompt_tokens = 0;  // each prompt ran once
    for (const auto& one : together) prompt_tokens += one->prompt.size();
    EXPECT_EQ(stats.prompt_tokens, prompt_tokens);
    for (auto& other : Company()) together.push_back(other);
  }
}

TEST_P(ModelLaws, StopIdsAreBannedBelowMinTokens) {
  const std::vector<uint32_t> prompt = RandomPrompt(5, 9, kVocab);
  const auto free = Run(Options(), {MakeRequest(1, prompt, 4)}).at(1);
  ASSERT_EQ(free.tokens.size(), 4);
  auto stopped = MakeRequest(1, prompt, 4);
  stopped->stop_ids = {free.tokens[0]};
  stopped->min_tokens = 1;  // the first token may stop
  auto banned = MakeRequest(2, prompt, 4);
  banned->stop_ids = {free.tokens[0]};
  banned->min_tokens = 2;  // it may not
  const auto outputs = Run(Options(), {stopped, banned});
  EXPECT_EQ(outputs.at(1).tokens, (std::vector<uint32_t>{free.tokens[0]}));
  EXPECT_EQ(outputs.at(1).finish, FinishReason::kStop);
  EXPECT_NE(outputs.at(2).tokens[0], free.tokens[0]);
  EXPECT_GE(outputs.at(2).tokens.size(), 2);
}

INSTANTIATE_TEST_SUITE_P(Backends, ModelLaws,
                         testing::Values(Case{BackendKind::kRef}, Case{BackendKind::kCpu},
                                         Case{BackendKind::kRef, KvQuantization::kInt8},
                                         Case{BackendKind::kCpu, KvQuantization::kInt8},
                                         Case{BackendKind::kCpu, KvQuantization::kFp8E4M3},
                                         Case{BackendKind::kCpu, KvQuantization::kInt4}),
                         [](const auto& info) {
                           const std::string name = info.param.backend == BackendKind::kRef ? "Ref" : "Cpu";
                           if (info.param.quantization == KvQuantization::kNone) return name;
                           return name + "_" + std::string(KvTypeName(DType::kBFloat16, info.param.quantization));
                         });

}  // namespace
}  // namespace quire
