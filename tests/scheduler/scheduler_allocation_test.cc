// Nothing is allocated on the step path: this binary counts operator new.

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "scheduler/scheduler.h"
#include "tests/scheduler/fake_runner.h"

namespace {
std::atomic<int64_t> num_allocations{0};
}  // namespace

// Not inlined, else gcc sees `free` of what came from `new` and warns.
[[gnu::noinline]] void* operator new(size_t bytes) {
  ++num_allocations;
  if (void* p = std::malloc(bytes)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace quire {
namespace {

constexpr int32_t kBlockSize = 16;
constexpr RequestId kNumRequests = 32;

enum class Cache { kNone, kPrefixes, kPrefixesTold };

// Steps until all prompts are in, then as many again for vectors to reach their size.
class SteadyDecode : public testing::TestWithParam<Cache> {
 protected:
  void SetUp() override {
    for (RequestId id = 1; id <= kNumRequests; ++id) {
      auto request = std::make_shared<Request>();
      request->id = id;
      request->prompt.assign(10 + id, static_cast<uint32_t>(id));
      request->prompt_hashes = HashBlocks("", request->prompt, kBlockSize);
      request->root_hash = RootHash("");
      request->sampling.seed = id << 8;
      request->stop_ids = {FakeRunner::kVocabSize};  // never drawn
      request->max_tokens = 500;
      ASSERT_TRUE(scheduler_.Add(request).ok());
    }
    for (int i = 0; i < 64; ++i) Step();
    ASSERT_EQ(scheduler_.stats().num_running, int32_t(kNumRequests));
  }

  // The allocations of one step. The runner's own are not counted.
  int64_t Step() {
    events_.clear();
    const int64_t before_schedule = num_allocations;
    scheduler_.Expire(absl::UnixEpoch(), events_);
    scheduler_.Schedule(absl::UnixEpoch(), batch_, events_);
    const int64_t in_schedule = num_allocations - before_schedule;
    runner_.Run(batch_, result_);
    const int64_t before_commit = num_allocations;
    scheduler_.Commit(absl::UnixEpoch(), batch_, result_, events_);
    kv_events_.Flush();
    return in_schedule + num_allocations - before_commit;
  }

  KvEventLog kv_events_{/*max_events=*/64};
  SchedulerOptions options_ = {.block_size = kBlockSize,
                               .num_blocks = 2000,
                               .max_num_seqs = int32_t(kNumRequests),
                               .max_num_batched_tokens = 256,
                               .max_model_len = 1000,
                               .enable_prefix_caching = GetParam() != Cache::kNone,
                               .kv_events = GetParam() == Cache::kPrefixesTold ? &kv_events_ : nullptr};
  Scheduler scheduler_{options_};
  FakeRunner runner_{options_};
  Batch batch_;
  StepResult result_;
  std::vector<TokenEvent> events_;
};

// More than the plan asks: also a step in which sequences gain, fill and publish blocks allocates nothing.
TEST_P(SteadyDecode, AllocatesNothing) {
  const int32_t held_before = scheduler_.stats().blocks_held;
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(Step(), 0) << "step " << i;
    EXPECT_EQ(events_.size(), kNumRequests);
  }
  EXPECT_GT(scheduler_.stats().blocks_held, held_before);
}

INSTANTIATE_TEST_SUITE_P(PrefixCaching, SteadyDecode,
                         testing::Values(Cache::kNone, Cache::kPrefixes, Cache::kPrefixesTold));

TEST(AllocationCounter, Counts) {
  const int64_t before = num_allocations;
  delete new int(1);
  std::vector<int>(3).swap(*std::make_unique<std::vector<int>>());
  EXPECT_GT(num_allocations - before, 0);
}

}  // namespace
}  // namespace quire
