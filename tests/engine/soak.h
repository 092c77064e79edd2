// Soak: mixed traffic in a cache that is too small for it, then every request alone in another engine, compared
// bitwise.

#ifndef QUIRE_TESTS_ENGINE_SOAK_H_
#define QUIRE_TESTS_ENGINE_SOAK_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "kvcache/block_hash.h"
#include "tests/engine/engine_testing.h"

namespace quire::soak {

inline constexpr uint32_t kVocab = 4096;
inline constexpr int32_t kBlockSize = 8;
inline constexpr RequestId kToBeCancelled = 1'000'000;  // ids from here on

using Requests = std::vector<std::shared_ptr<const Request>>;

// Prompts and outputs as long as the backend can take in the time.
struct Sizes {
  std::vector<size_t> prompts;
  std::vector<uint32_t> outputs;
};
inline const Sizes kLarge = {{2, 9, 17, 40, 64, 130, 240}, {1, 5, 20, 60}};
inline const Sizes kSmall = {{2, 9, 17}, {1, 5, 12}};

class Traffic {
 public:
  Traffic(uint64_t seed, const Sizes& sizes) : random_(seed), sizes_(sizes) {}

  std::shared_ptr<const Request> Next(RequestId id) {
    // A few prompts that come again and again, and of which long ones begin like short ones.
    std::vector<uint32_t> prompt = RandomPrompt(OneOf<uint64_t>({1, 2, 3}), OneOf(sizes_.prompts), kVocab);
    if (Chance(30)) prompt.back() = static_cast<uint32_t>(random_() % kVocab);
    const auto request = MakeRequest(id, std::move(prompt), OneOf(sizes_.outputs));
    if (Chance(80)) {
      request->use_prefix_cache = true;
      request->root_hash = RootHash("");
      request->prompt_hashes = HashBlocks("", request->prompt, kBlockSize);
    }
    Draw(request->sampling);
    request->sampling.seed = id;
    if (Chance(20)) request->logit_bias = {{5, 3.0f}, {77, -100.0f}, {1234, 0.5f}};
    if (Chance(10)) {
      for (uint32_t i = 0; i < kVocab; i += 3) request->allowed_ids.push_back(i);
    }
    if (Chance(60)) {
      for (int i = 0; i < 30; ++i) request->stop_ids.push_back(static_cast<uint32_t>(random_() % kVocab));
      request->min_tokens = std::min(request->max_tokens, OneOf<uint32_t>({0, 1, 4}));
    }
    if (Chance(60)) request->num_logprobs = OneOf<uint32_t>({0, 3, 20});
    if (Chance(10)) request->num_prompt_logprobs = 2;
    if (Chance(15)) request->num_outputs = OneOf<uint32_t>({2, 3, 5});
    return request;
  }

  bool Chance(int percent) { return static_cast<int>(random_() % 100) < percent; }

 private:
  template <typename T>
  T OneOf(const std::vector<T>& values) {
    return values[random_() % values.size()];
  }

  void Draw(SamplingParams& sampling) {
    sampling.temperature = OneOf<float>({0, 0.7f, 1, 1.6f});
    if (Chance(40)) {
      sampling.top_k = OneOf<uint32_t>({0, 2, 40});
      sampling.top_p = OneOf<float>({1, 0.8f});
      sampling.min_p = OneOf<float>({0, 0.05f});
    }
    if (Chance(30)) {
      sampling.repetition_penalty = 1.2f;
      sampling.frequency_penalty = 0.5f;
      sampling.presence_penalty = -0.3f;
    }
  }

  std::mt19937_64 random_;
  const Sizes& sizes_;
};

// The bundled model on a backend of so many threads, where it has threads.
using Load = std::function<absl::StatusOr<LoadedModel>(EngineOptions options, int num_threads)>;

inline EngineOptions Options() {
  EngineOptions options = BundledModelOptions(BackendKind::kCpu);
  options.block_size = kBlockSize;
  return options;
}

inline std::unique_ptr<Engine> Start(absl::StatusOr<LoadedModel> model, EventSink& sink) {
  EXPECT_TRUE(model.ok()) << model.status();
  return std::make_unique<Engine>(model->plan.scheduler, std::numeric_limits<int32_t>::max(),
                                  std::numeric_limits<int64_t>::max(), std::move(model->runner), &sink);
}

inline void Soak(const Load& load, const Sizes& sizes, int num_requests) {
  Traffic traffic(20240607, sizes);
  Requests kept;
  for (int i = 0; i < num_requests; ++i) kept.push_back(traffic.Next(i));

  // In company: two workers, a cache of few sequences, small chunks; every eighth request is cancelled once it has a
  // token, and some clients do not read for a while.
  const size_t longest = *std::max_element(sizes.prompts.begin(), sizes.prompts.end()) + sizes.outputs.back();
  EngineOptions small = Options();
  small.max_num_seqs = 16;
  small.max_num_batched_tokens = 96;
  small.max_model_len = static_cast<int32_t>(longest);
  small.kv_cache_bytes = 1536 * 3 * longest;  // 1536 bytes per token in bfloat16
  CollectingSink together;
  std::unique_ptr<Engine> engine = Start(load(small, 2), together);
  std::vector<RequestId> cancelled, paused;
  for (const auto& request : kept) {
    if (traffic.Chance(12)) {
      cancelled.push_back(kToBeCancelled + request->id);
      ASSERT_TRUE(engine->Submit(traffic.Next(cancelled.back())).ok());
    }
    ASSERT_TRUE(engine->Submit(request).ok());
    if (!traffic.Chance(10)) continue;
    paused.push_back(request->id);
    engine->Pause(request->id);
  }
  for (const RequestId id : cancelled) {
    together.WaitUntil([&](const auto& outputs) {
      return outputs.contains(id) && (!outputs.at(id).tokens.empty() || outputs.at(id).num_endings > 0);
    });
    engine->Cancel(id, Ending::kCancelled);
  }
  for (const RequestId id : paused) engine->Resume(id);
  const auto keys_of = [](const Request& request) {
    std::vector<RequestId> keys;
    for (uint32_t i = 0; i < request.num_outputs; ++i) keys.push_back(OutputKey(request.id, i));
    return keys;
  };
  for (const auto& request : kept) {
    for (const RequestId key : keys_of(*request)) together.Wait(key);
  }
  engine->Shutdown();
  const SchedulerStats stats = engine->snapshot().scheduler;
  if (num_requests >= 200) {  // a handful may meet nothing
    EXPECT_GT(stats.preemptions, 0u);
    EXPECT_GT(stats.prefix_hits, 0u);
  }
  EXPECT_EQ(stats.pauses, paused.size());
  EXPECT_EQ(stats.blocks_held, 0);

  // Alone, after a restart: one worker, a large cache, whole prompts.
  CollectingSink alone;
  engine.reset();  // a restart
  engine = Start(load(Options(), 1), alone);
  int num_tokens = 0;
  for (const auto& request : kept) {
    ASSERT_TRUE(engine->Submit(request).ok());
    for (const RequestId key : keys_of(*request)) {
      const Output want = alone.Wait(key);
      const Output got = together.Wait(key);
      EXPECT_EQ(want.ending, Ending::kNone);
      EXPECT_TRUE(got == want) << "output " << (key >> 32) << " of request " << request->id << " differs in company";
      num_tokens += static_cast<int>(want.tokens.size());
    }
  }
  testing::Test::RecordProperty("tokens", num_tokens);
  testing::Test::RecordProperty("preemptions", static_cast<int>(stats.preemptions));
}

}  // namespace quire::soak

#endif  // QUIRE_TESTS_ENGINE_SOAK_H_
