// A row of logits that is no number ends its own request with kFailed, and nothing of it is left: its blocks are
// scrubbed and forgotten by the prefix cache, and others answer as if it had never been.

#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "engine/backend_model_runner.h"
#include "gtest/gtest.h"
#include "kernels/dtype.h"
#include "kvcache/block_hash.h"
#include "tests/engine/engine_testing.h"

namespace quire {
namespace {

constexpr uint32_t kVocab = 4096;
constexpr RequestId kVictim = 7;

// Calls visit(bytes of K or V, dtype, index) for every number of a block.
template <typename Visit>
void ForNumbers(const KvCache& cache, BlockId block, const Visit& visit) {
  for (int32_t layer = 0; layer < cache.spec().NumLayers(); ++layer) {
    const PagedKv kv = cache.LayerView(layer);
    for (int32_t head = 0; head < kv.kv_heads; ++head) {
      for (int32_t offset = 0; offset < kv.block_size; ++offset) {
        for (int32_t dim = 0; dim < kv.head_dim; ++dim) {
          visit(kv.k, kv.dtype, kv.KIndex(block, head, offset, dim));
          visit(kv.v, kv.dtype, kv.VIndex(block, head, offset, dim));
        }
      }
    }
  }
}

// Passes batches on. Before the step that runs position `poisoned_at` of the victim, its last full block becomes NaN.
// Counts the NaNs of the whole cache after each step that follows.
class FaultyRunner : public ModelRunner {
 public:
  FaultyRunner(std::unique_ptr<ModelRunner> runner, int32_t poisoned_at)
      : runner_(std::move(runner)), poisoned_at_(poisoned_at) {}

  absl::Status Launch(const Batch& batch) override {
    const KvCache& cache = dynamic_cast<const BackendModelRunner&>(*runner_).kv_cache();
    const bool poisons = Poison(batch, cache);
    const absl::Status status = runner_->Launch(batch);
    if (poisoned_ && !poisons) *num_left_ = CountNaN(cache);
    return status;
  }
  absl::StatusOr<const StepResult*> Collect() override { return runner_->Collect(); }

  // Of the last step after the fault; owned by the test, which outlives the runner.
  void TellNaN(int* num_left) { num_left_ = num_left; }

 private:
  bool Poison(const Batch& batch, const KvCache& cache) {
    for (const Chunk& chunk : batch.chunks) {
      if (chunk.sequence->request().id != kVictim || chunk.begin != poisoned_at_ || poisoned_) continue;
      const BlockTable& table = chunk.sequence->block_table(0);
      const BlockId block = table[chunk.begin / cache.spec().block_size - 1];
      ForNumbers(cache, block, [](void* data, DType dtype, int64_t i) { StoreFloat(data, dtype, i, NAN); });
      return poisoned_ = true;
    }
    return false;
  }
  static int CountNaN(const KvCache& cache) {
    int count = 0;
    for (BlockId block = 0; block < cache.num_blocks(); ++block) {
      ForNumbers(cache, block,
                 [&](void* data, DType dtype, int64_t i) { count += std::isnan(LoadFloat(data, dtype, i)); });
    }
    return count;
  }

  std::unique_ptr<ModelRunner> runner_;
  const int32_t poisoned_at_;
  bool poisoned_ = false;
  int* num_left_ = nullptr;
};

class Containment : public testing::TestWithParam<BackendKind> {
 protected:
  static EngineOptions Options() {
    EngineOptions options = BundledModelOptions(GetParam());
    options.kv_cache_bytes = 1536 * 16 * 40;  // 40 blocks
    options.max_model_len = 200;
    if (GetParam() == BackendKind::kCpu) options.backend.num_threads = 1;
    return options;
  }

  static std::shared_ptr<Request> CachedRequest(RequestId id, uint64_t seed, uint32_t max_tokens) {
    auto request = MakeCachedRequest(id, RandomPrompt(seed, 40, kVocab), max_tokens, 16);
    request->num_logprobs = 2;
    return request;
  }
};

TEST_P(Containment, ANaNEndsItsRequestAloneAndIsScrubbed) {
  absl::StatusOr<LoadedModel> healthy = LoadModel(Options());
  ASSERT_TRUE(healthy.ok()) << healthy.status();
  const std::vector<std::shared_ptr<const Request>> requests = {CachedRequest(1, 1, 12), CachedRequest(kVictim, 2, 12),
                                                                CachedRequest(3, 3, 12)};
  const auto want = RunAll(healthy->plan.scheduler, std::move(healthy->runner), requests);

  absl::StatusOr<LoadedModel> faulty = LoadModel(Options());
  ASSERT_TRUE(faulty.ok()) << faulty.status();
  int num_left = -1;
  auto runner = std::make_unique<FaultyRunner>(std::move(faulty->runner), /*poisoned_at=*/43);
  runner->TellNaN(&num_left);
  CollectingSink sink;
  Engine engine(faulty->plan.scheduler, 100, 100'000, std::move(runner), &sink);
  for (const auto& request : requests) ASSERT_TRUE(engine.Submit(request).ok());
  const Output victim = sink.Wait(kVictim);
  EXPECT_EQ(victim.ending, Ending::kFailed);
  EXPECT_EQ(victim.tokens.size(), 4u) << "those before the fault";
  EXPECT_TRUE(sink.Wait(1) == want.at(1));
  EXPECT_TRUE(sink.Wait(3) == want.at(3));

  // Its prompt again: nothing of it is in the cache, and it answers as in a healthy engine.
  const auto again = CachedRequest(8, 2, 12);
  ASSERT_TRUE(engine.Submit(again).ok());
  const Output output = sink.Wait(8);
  EXPECT_EQ(output.cached_tokens, 0u);
  EXPECT_TRUE(output == want.at(kVictim));
  const auto neighbour = CachedRequest(9, 1, 12);
  ASSERT_TRUE(engine.Submit(neighbour).ok());
  EXPECT_EQ(sink.Wait(9).cached_tokens, 32u) << "the others' blocks stayed";
  EXPECT_TRUE(sink.Wait(9) == want.at(1));
  engine.Shutdown();
  EXPECT_EQ(num_left, 0);
  EXPECT_EQ(engine.snapshot().scheduler.blocks_held, 0);
  EXPECT_TRUE(sink.failures().empty());
}

INSTANTIATE_TEST_SUITE_P(Backends, Containment, testing::Values(BackendKind::kRef, BackendKind::kCpu),
                         [](const auto& info) { return std::string(info.param == BackendKind::kRef ? "Ref" : "Cpu"); });

}  // namespace
}  // namespace quire
