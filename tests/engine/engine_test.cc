// The engine thread with a runner that computes nothing: endings, deadlines, failure, shutdown, the bounded queue; each
// waiting for a batch before it makes the next, and running ahead.

#include "engine/engine.h"

#include <array>
#include <condition_variable>
#include <limits>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "kvcache/block_hash.h"
#include "tests/engine/engine_testing.h"

namespace quire {
namespace {

// Lets steps through one by one, or all.
class Gate {
 public:
  // Blocks until a step may go.
  void Pass() {
    std::unique_lock lock(mutex_);
    ++num_arrived_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return num_allowed_ > 0; });
    if (num_allowed_ != kAll) --num_allowed_;
  }
  void Allow(int num_steps) {
    const std::lock_guard lock(mutex_);
    num_allowed_ += num_steps;
    changed_.notify_all();
  }
  void Open() {
    const std::lock_guard lock(mutex_);
    num_allowed_ = kAll;
    changed_.notify_all();
  }
  // Blocks until step number `n` (from 1) is at the gate.
  void AwaitStep(int n) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return num_arrived_ >= n; });
  }

 private:
  static constexpr int kAll = std::numeric_limits<int>::max();
  std::mutex mutex_;
  std::condition_variable changed_;
  int num_allowed_ = 0;
  int num_arrived_ = 0;
};

// Draws the token at position p of any sequence as p; fails in Launch or Collect of the step that it is told.
class CountingRunner : public ModelRunner {
 public:
  struct Options {
    Gate* gate = nullptr;
    int fails_in_launch = 0;   // step, from 1
    int fails_in_collect = 0;  // likewise
  };
  explicit CountingRunner(Options options) : options_(options) {}

  absl::Status Launch(const Batch& batch) override {
    if (options_.gate != nullptr) options_.gate->Pass();
    if (++num_launched_ == options_.fails_in_launch) return absl::InternalError("launch");
    StepResult& result = results_[num_launched_ % 2];
    result.sampled.clear();
    result.more_sampled.clear();
    for (const Chunk& chunk : batch.chunks) {
      const SampledToken token{.id = static_cast<uint32_t>(chunk.begin + chunk.count)};
      result.sampled.push_back(token);
      if (chunk.samples) result.more_sampled.insert(result.more_sampled.end(), chunk.num_draws - 1, token);
    }
    return absl::OkStatus();
  }
  absl::StatusOr<const StepResult*> Collect() override {
    if (++num_collected_ == options_.fails_in_collect) return absl::InternalError("collect");
    return &results_[num_collected_ % 2];
  }

 private:
  const Options options_;
  int num_launched_ = 0, num_collected_ = 0;
  std::array<StepResult, 2> results_;
};

// By run-ahead.
class EngineTest : public testing::TestWithParam<int32_t> {
 protected:
  static SchedulerOptions SmallOptions() {
    return {.block_size = 8,
            .num_blocks = 64,
            .max_num_seqs = 2,
            .max_num_batched_tokens = 16,
            .run_ahead = GetParam(),
            .max_model_len = 512};
  }

  static std::unique_ptr<Engine> MakeEngine(CountingRunner::Options runner, EventSink* sink,
                                            int32_t max_waiting = 1000) {
    return std::make_unique<Engine>(SmallOptions(), max_waiting, 1'000'000, std::make_unique<CountingRunner>(runner),
                                    sink);
  }
};

INSTANTIATE_TEST_SUITE_P(RunAhead, EngineTest, testing::Values(0, 1));

constexpr uint32_t kLong = 500;  // tokens of output: does not end by itself in these tests

TEST_P(EngineTest, RunsARequestToItsEnd) {
  CollectingSink sink;
  const auto engine = MakeEngine({}, &sink);
  ASSERT_TRUE(engine->Submit(MakeRequest(7, {1, 2, 3}, 4)).ok());
  const Output output = sink.Wait(7);
  EXPECT_EQ(output.tokens, (std::vector<uint32_t>{3, 4, 5, 6}));
  EXPECT_EQ(output.finish, FinishReason::kLength);
  EXPECT_EQ(output.num_started, 1);
  EXPECT_EQ(output.num_endings, 1);
  const EngineSnapshot snapshot = engine->snapshot();  // published before the events
  EXPECT_EQ(snapshot.scheduler.sampled_tokens, 4u);
  EXPECT_EQ(snapshot.step_tokens, 6u);
  EXPECT_EQ(snapshot.num_blocks, 64);
  EXPECT_EQ(snapshot.scheduler.blocks_held, 0);
  EXPECT_GT(snapshot.last_step, absl::UnixEpoch());
  EXPECT_EQ(engine->num_waiting(), 0);
}

TEST_P(EngineTest, EndsWithFailedWhatCanNeverRun) {
  CollectingSink sink;
  const auto engine = MakeEngine({}, &sink);
  ASSERT_TRUE(engine->Submit(MakeRequest(1, {}, 1)).ok());
  EXPECT_EQ(sink.Wait(1).ending, Ending::kFailed);
  ASSERT_TRUE(engine->Submit(MakeRequest(2, {1}, 512)).ok());
  EXPECT_EQ(sink.Wait(2).ending, Ending::kFailed);
  EXPECT_EQ(engine->num_waiting(), 0);
}

TEST_P(EngineTest, CancelEndsWhatRunsAndWhatWaitsAndIgnoresTheUnknown) {
  Gate gate;
  CollectingSink sink;
  const auto engine = MakeEngine({.gate = &gate}, &sink);
  for (RequestId id = 1; id <= 3; ++id)
    ASSERT_TRUE(engine->Submit(MakeRequest(id, {1}, kLong)).ok());  // two run, one waits
  gate.AwaitStep(1);
  engine->Cancel(1, Ending::kCancelled);
  engine->Cancel(3, Ending::kExpired);
  engine->Cancel(99, Ending::kCancelled);
  gate.Allow(1);
  EXPECT_EQ(sink.Wait(1).ending, Ending::kCancelled);
  EXPECT_EQ(sink.Wait(3).ending, Ending::kExpired);
  engine->Cancel(1, Ending::kCancelled);  // over already
  engine->Cancel(2, Ending::kCancelled);
  gate.Open();
  EXPECT_EQ(sink.Wait(2).ending, Ending::kCancelled);
  engine->Shutdown();
  for (const auto& [id, output] : sink.outputs()) EXPECT_EQ(output.num_endings, 1) << id;
}

TEST_P(EngineTest, StopEndsWithoutAnEventAndFreesTheBlocks) {
  Gate gate;
  CollectingSink sink;
  const auto engine = MakeEngine({.gate = &gate}, &sink);
  ASSERT_TRUE(engine->Submit(MakeRequest(1, {1}, kLong)).ok());
  gate.Allow(1);
  gate.AwaitStep(2);
  engine->Stop(1, 0);
  ASSERT_TRUE(engine->Submit(MakeRequest(2, {1}, 1)).ok());
  gate.Open();
  sink.Wait(2);
  EXPECT_EQ(engine->snapshot().scheduler.blocks_held, 0);
  engine->Shutdown();
  EXPECT_EQ(sink.outputs().at(1).num_endings, 0);
}

TEST_P(EngineTest, StopOfAWaitingRequestGivesItsPlaceBack) {
  Gate gate;
  CollectingSink sink;
  const auto engine = MakeEngine({.gate = &gate}, &sink, /*max_waiting=*/3);
  for (RequestId id = 1; id <= 3; ++id) ASSERT_TRUE(engine->Submit(MakeRequest(id, {1}, 3)).ok());
  engine->Stop(3, 0);
  gate.Open();
  sink.Wait(1);
  sink.Wait(2);
  EXPECT_EQ(engine->num_waiting(), 0);
}

TEST_P(EngineTest, ExpiresWhatRuns) {
  CollectingSink sink;
  const auto engine = MakeEngine({}, &sink);
  auto request = MakeRequest(1, {1}, kLong);
  request->deadline = absl::Now();
  ASSERT_TRUE(engine->Submit(request).ok());
  EXPECT_EQ(sink.Wait(1).ending, Ending::kExpired);
}

TEST_P(EngineTest, ExpiresWhatWaitsWhileAnotherRuns) {
  Gate gate;
  CollectingSink sink;
  const auto engine = MakeEngine({.gate = &gate}, &sink);
  for (RequestId id = 1; id <= 2; ++id) ASSERT_TRUE(engine->Submit(MakeRequest(id, {1}, kLong)).ok());
  gate.AwaitStep(1);
  auto late = MakeRequest(3, {1}, kLong);
  late->deadline = absl::Now();
  ASSERT_TRUE(engine->Submit(late).ok());
  gate.Allow(1);
  EXPECT_EQ(sink.Wait(3).ending, Ending::kExpired);
  EXPECT_EQ(sink.outputs().at(3).num_started, 0);
  gate.Open();
}

TEST_P(EngineTest, AFailureEndsEverythingOnceAndClosesTheDoor) {
  for (const bool in_launch : {true, false}) {
    Gate gate;
    CollectingSink sink;
    const auto engine =
        MakeEngine({.gate = &gate, .fails_in_launch = in_launch ? 2 : 0, .fails_in_collect = in_launch ? 0 : 2}, &sink);
    for (RequestId id = 1; id <= 3; ++id) ASSERT_TRUE(engine->Submit(MakeRequest(id, {1}, kLong)).ok());
    gate.Allow(1);
    gate.AwaitStep(2);
    ASSERT_TRUE(engine->Submit(MakeRequest(4, {1}, kLong)).ok());  // still in the inbox when the step fails
    gate.Open();
    for (RequestId id = 1; id <= 4; ++id) EXPECT_EQ(sink.Wait(id).ending, Ending::kEngineFailed) << id;
    engine->Shutdown();
    EXPECT_EQ(sink.failures(), std::vector<absl::Status>{absl::InternalError(in_launch ? "launch" : "collect")});
    for (const auto& [id, output] : sink.outputs()) EXPECT_EQ(output.num_endings, 1) << id;
    const absl::Status refused = engine->Submit(MakeRequest(5, {1}, 1));
    EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(engine->num_waiting(), 0);
  }
}

TEST_P(EngineTest, ShutdownEndsWhatIsLeftAndIsIdempotent) {
  Gate gate;
  CollectingSink sink;
  const auto engine = MakeEngine({.gate = &gate}, &sink);
  for (RequestId id = 1; id <= 3; ++id) ASSERT_TRUE(engine->Submit(MakeRequest(id, {1}, kLong)).ok());
  gate.AwaitStep(1);
  ASSERT_TRUE(engine->Submit(MakeRequest(4, {1}, kLong)).ok());
  std::thread other([&] { engine->Shutdown(); });
  gate.Open();
  engine->Shutdown();
  other.join();
  const auto outputs = sink.outputs();
  ASSERT_EQ(outputs.size(), 4);
  for (const auto& [id, output] : outputs) {
    EXPECT_EQ(output.num_endings, 1) << id;
    EXPECT_EQ(output.ending, Ending::kShutdown) << id;
  }
  EXPECT_EQ(engine->Submit(MakeRequest(5, {1}, 1)).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(sink.failures().empty());
}

TEST_P(EngineTest, EndAllEndsWhatCameBeforeAndGoesOn) {
  Gate gate;
  CollectingSink sink;
  const auto engine = MakeEngine({.gate = &gate}, &sink);
  for (RequestId id = 1; id <= 3; ++id) ASSERT_TRUE(engine->Submit(MakeRequest(id, {1}, kLong)).ok());
  engine->EndAll(Ending::kShutdown);
  ASSERT_TRUE(engine->Submit(MakeRequest(4, {1}, 2)).ok());
  gate.Open();
  for (RequestId id = 1; id <= 3; ++id) EXPECT_EQ(sink.Wait(id).ending, Ending::kShutdown);
  EXPECT_EQ(sink.Wait(4).finish, FinishReason::kLength);
}

TEST_P(EngineTest, TheQueueIsBoundedAndCancelGetsInWhenItIsFull) {
  Gate gate;
  CollectingSink sink;
  const auto engine = MakeEngine({.gate = &gate}, &sink, /*max_waiting=*/2);
  for (RequestId id = 1; id <= 2; ++id) ASSERT_TRUE(engine->Submit(MakeRequest(id, {1}, kLong)).ok());
  gate.AwaitStep(1);
  gate.Allow(1);
  gate.AwaitStep(2);  // both run by now, or one does and the other is about to
  gate.Allow(1);
  gate.AwaitStep(3);
  for (RequestId id = 3; id <= 4; ++id) ASSERT_TRUE(engine->Submit(MakeRequest(id, {1}, kLong)).ok());
  EXPECT_EQ(engine->Submit(MakeRequest(5, {1}, 1)).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(engine->num_waiting(), 2);
  EXPECT_GE(engine->RetryDelay(), absl::Milliseconds(10));
  EXPECT_LE(engine->RetryDelay(), absl::Seconds(60));
  engine->Cancel(3, Ending::kCancelled);
  gate.Allow(1);
  EXPECT_EQ(sink.Wait(3).ending, Ending::kCancelled);
  EXPECT_TRUE(engine->Submit(MakeRequest(6, {1}, 1)).ok());
  gate.Open();
}

// Clients that come, cancel and stop from several threads while the engine runs dry again and again: nobody is
// forgotten, nobody hangs.
TEST_P(EngineTest, LosesNoWakeUpAndGivesOneEndingEach) {
  constexpr int kThreads = 3, kRequests = 150;
  CollectingSink sink;
  const auto engine = MakeEngine({}, &sink, std::numeric_limits<int32_t>::max());
  std::vector<std::thread> clients;
  for (int t = 0; t < kThreads; ++t) {
    clients.emplace_back([&, t] {
      for (int i = 0; i < kRequests; ++i) {
        const RequestId id = t * kRequests + i;
        ASSERT_TRUE(engine->Submit(MakeRequest(id, {1, 2, 3}, 1 + i % 5)).ok());
        if (i % 7 == 0) engine->Cancel(id, Ending::kCancelled);
        if (i % 3 == 0) sink.Wait(id);
      }
    });
  }
  for (std::thread& client : clients) client.join();
  for (RequestId id = 0; id < kThreads * kRequests; ++id) sink.Wait(id);
  engine->Shutdown();
  for (const auto& [id, output] : sink.outputs()) EXPECT_EQ(output.num_endings, 1) << id;
  EXPECT_EQ(engine->snapshot().scheduler.blocks_held, 0);
}

// Threads of clients that give up at random moments: before their request is taken, while it waits, in its prompt, in
// the middle of one of its outputs, after its end.
TEST_P(EngineTest, TenThousandCancelsLeaveEveryBlockFreeOrCached) {
  constexpr int kThreads = 2, kRequests = 5000;  // of each thread
  CollectingSink sink;
  SchedulerOptions options = SmallOptions();
  options.max_num_seqs = 8;
  Engine engine(options, std::numeric_limits<int32_t>::max(), std::numeric_limits<int64_t>::max(),
                std::make_unique<CountingRunner>(CountingRunner::Options{}), &sink);
  std::vector<std::thread> clients;
  for (int t = 0; t < kThreads; ++t) {
    clients.emplace_back([&engine, t] {
      std::minstd_rand random(t + 1);
      std::vector<RequestId> open;
      const auto cancel_one = [&] {
        std::swap(open[random() % open.size()], open.back());
        engine.Cancel(open.back(), Ending::kCancelled);
        open.pop_back();
      };
      for (int i = 0; i < kRequests; ++i) {
        const RequestId id = t * kRequests + i;
        const auto request = MakeCachedRequest(id, RandomPrompt(random() % 5, 1 + random() % 40, 100), kLong - 50, 8);
        request->num_outputs = 1 + random() % 3;
        ASSERT_TRUE(engine.Submit(request).ok());
        open.push_back(id);
        if (open.size() > random() % 16) cancel_one();
        if (random() % 64 == 0) std::this_thread::yield();
      }
      while (!open.empty()) cancel_one();
    });
  }
  for (std::thread& client : clients) client.join();
  sink.WaitUntil([](const auto& outputs) {
    size_t ended = 0;
    for (const auto& [key, output] : outputs) ended += key < kThreads * kRequests && output.num_endings == 1;
    return ended == kThreads * kRequests;
  });
  engine.Shutdown();  // what is in flight then comes in
  const EngineSnapshot snapshot = engine.snapshot();
  EXPECT_EQ(snapshot.scheduler.blocks_held, 0);
  EXPECT_EQ(snapshot.scheduler.blocks_free + snapshot.scheduler.blocks_cached, options.num_blocks);
  EXPECT_EQ(snapshot.scheduler.num_running + snapshot.scheduler.num_waiting, 0);
  EXPECT_EQ(engine.num_waiting(), 0);
  for (const auto& [key, output] : sink.outputs()) EXPECT_LE(output.num_endings, 1) << key;
}

}  // namespace
}  // namespace quire
