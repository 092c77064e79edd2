// What is told of the prefix cache is what is in it.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/scheduler.h"
#include "tests/scheduler/fake_runner.h"

namespace quire {
namespace {

constexpr int32_t kBlockSize = 4;

struct Block {
  std::optional<KvBlockNumber> parent;
  std::vector<uint32_t> tokens;
};

// A scheduler, its runner, and what a reader of its events believes.
class Life {
 public:
  Life() : scheduler_(Options()), runner_(Options()) {}

  void Add(RequestId id, std::vector<uint32_t> prompt, uint32_t max_tokens, const std::string& salt = "") {
    auto request = std::make_shared<Request>();
    request->id = id;
    request->prompt_hashes = HashBlocks(salt, prompt, kBlockSize);
    request->prompt = std::move(prompt);
    request->root_hash = RootHash(salt);
    request->sampling.seed = id << 8;
    request->max_tokens = max_tokens;
    ASSERT_TRUE(scheduler_.Add(request).ok());
  }

  void StepUntilIdle() {
    while (!scheduler_.idle()) {
      events_.clear();
      scheduler_.Schedule(absl::UnixEpoch(), batch_, events_);
      runner_.Run(batch_, result_);
      scheduler_.Commit(absl::UnixEpoch(), batch_, result_, events_);
    }
    log_.Removed({});  // so that Take has something to take
    log_.Flush();
    KvEventBatch batch;
    ASSERT_TRUE(log_.Take(batch));
    const uint32_t* tokens = batch.tokens.data();
    for (const KvEvent& event : batch.events) {
      if (event.kind == KvEventKind::kStored) {
        cached_[event.block] = {event.parent, {tokens, tokens + kBlockSize}};
        tokens += kBlockSize;
      } else {
        cached_.erase(event.block);
      }
    }
  }

  // The tokens of the prefixes that end with each block, as far as their beginnings are cached.
  std::vector<std::vector<uint32_t>> Prefixes() const {
    std::vector<std::vector<uint32_t>> prefixes;
    for (const auto& [number, block] : cached_) {
      std::vector<uint32_t> prefix = block.tokens;
      for (auto parent = block.parent; parent;) {
        const auto found = cached_.find(*parent);
        if (found == cached_.end()) break;
        prefix.insert(prefix.begin(), found->second.tokens.begin(), found->second.tokens.end());
        parent = found->second.parent;
      }
      prefixes.push_back(std::move(prefix));
    }
    return prefixes;
  }

  const std::map<KvBlockNumber, Block>& cached() const { return cached_; }
  SchedulerStats stats() const { return scheduler_.stats(); }

 private:
  SchedulerOptions Options() {
    return {.block_size = kBlockSize,
            .num_blocks = 24,
            .max_num_seqs = 4,
            .max_num_batched_tokens = 20,
            .max_model_len = 80,
            .kv_events = &log_};
  }

  KvEventLog log_{100000};
  Scheduler scheduler_;
  FakeRunner runner_;
  Batch batch_;
  StepResult result_;
  std::vector<TokenEvent> events_;
  std::map<KvBlockNumber, Block> cached_;
};

TEST(KvEvents, TellTokensAndParentsOfFullBlocks) {
  Life life;
  life.Add(1, {5, 6, 7, 8, 9, 10, 11, 12, 13}, 1);
  life.StepUntilIdle();
  ASSERT_EQ(life.cached().size(), 2u);
  std::vector<std::vector<uint32_t>> prefixes = life.Prefixes();
  std::sort(prefixes.begin(), prefixes.end());
  EXPECT_EQ(prefixes[0], (std::vector<uint32_t>{5, 6, 7, 8}));
  EXPECT_EQ(prefixes[1], (std::vector<uint32_t>{5, 6, 7, 8, 9, 10, 11, 12}));
}

TEST(KvEvents, SayNothingOfBlocksWithASalt) {
  Life life;
  life.Add(1, {5, 6, 7, 8, 9, 10, 11, 12, 13}, 1, "secret");
  life.StepUntilIdle();
  EXPECT_EQ(life.cached().size(), 0u);
  EXPECT_EQ(life.stats().blocks_cached, 2);
}

// With one group of layers and no salts each cached block has been told of, and none that is not cached.
TEST(KvEvents, AreTheCacheThroughHitsPreemptionsAndReuse) {
  TestRandom random(7);
  Life life;
  RequestId id = 0;
  for (int round = 0; round < 200; ++round) {
    for (int i = random.Between(1, 6); i > 0; --i) {
      std::vector<uint32_t> prompt;  // of few different ones
      const auto kind = static_cast<uint32_t>(random.Between(0, 5));
      for (int32_t t = 0; t < 4 + 7 * static_cast<int32_t>(kind); ++t) prompt.push_back((kind / 2 + t) % 30);
      life.Add(++id, std::move(prompt), static_cast<uint32_t>(random.Between(1, 30)));
    }
    life.StepUntilIdle();
    ASSERT_EQ(life.cached().size(), static_cast<size_t>(life.stats().blocks_cached)) << "round " << round;
  }
  EXPECT_GT(life.stats().preemptions, 0u);
  EXPECT_GT(life.stats().prefix_hits, 0u);
}

}  // namespace
}  // namespace quire
