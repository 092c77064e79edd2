// Hand-worked schedules. What holds for all schedules is in scheduler_laws_test.cc.

#include "scheduler/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>

#include "tests/scheduler/fake_runner.h"
#include "tests/scheduler/plain_request.h"

namespace quire {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Blocks of 4 tokens.
SchedulerOptions SmallOptions() {
  return {.block_size = 4, .num_blocks = 100, .max_num_seqs = 8, .max_num_batched_tokens = 100, .max_model_len = 1000};
}

// The same prompt for every id, with hashes.
std::shared_ptr<Request> MakeCachedRequest(RequestId id, uint32_t num_prompt, uint32_t max_tokens,
                                           const std::string& salt = "") {
  auto request = PlainRequest(id, num_prompt, max_tokens);
  request->use_prefix_cache = true;
  request->prompt_hashes = HashBlocks(salt, request->prompt, 4);
  request->root_hash = RootHash(salt);
  return request;
}

// A scheduler, its runner, and all events so far.
class Harness {
 public:
  explicit Harness(const SchedulerOptions& options) : scheduler_(options), runner_(options) {}

  void Add(std::shared_ptr<const Request> request) { ASSERT_TRUE(scheduler_.Add(std::move(request)).ok()); }

  void Schedule() { scheduler_.Schedule(now_, batch_, events_); }
  void Commit() {
    runner_.Run(batch_, result_);
    EXPECT_THAT(runner_.violations(), IsEmpty());
    scheduler_.Commit(now_, batch_, result_, events_);
  }
  // One step: what ran, as {request, begin, count} of each chunk.
  std::vector<std::vector<int64_t>> Step() {
    Schedule();
    std::vector<std::vector<int64_t>> chunks;
    for (const Chunk& chunk : batch_.chunks) {
      chunks.push_back({int64_t(chunk.sequence->request().id), chunk.begin, chunk.count});
    }
    Commit();
    now_ += absl::Seconds(1);
    return chunks;
  }
  void StepUntilIdle() {
    for (int i = 0; i < 1000 && !scheduler_.idle(); ++i) Step();
    EXPECT_TRUE(scheduler_.idle());
  }

  // Tokens of a request so far.
  std::vector<uint32_t> TokensOf(RequestId id) const {
    std::vector<uint32_t> tokens;
    for (const TokenEvent& event : events_) {
      if (event.kind == EventKind::kToken && event.request_id == id) tokens.push_back(event.token_id);
    }
    return tokens;
  }
  uint32_t CachedTokensOf(RequestId id) const {
    for (const TokenEvent& event : events_) {
      if (event.kind == EventKind::kStarted && event.request_id == id) return event.cached_tokens;
    }
    ADD_FAILURE() << "request " << id << " has not started";
    return 0;
  }

  Scheduler scheduler_;
  FakeRunner runner_;
  absl::Time now_ = absl::UnixEpoch();
  Batch batch_;
  StepResult result_;
  std::vector<TokenEvent> events_;
};

using Chunks = std::vector<std::vector<int64_t>>;

TEST(Scheduler, ChunksOfPromptsShareALimitOfTheirOwnThatDecodesDoNotCountIn) {
  SchedulerOptions options = SmallOptions();
  options.chunked_prefill_size = 6;
  Harness h(options);
  h.Add(PlainRequest(1, 4, 9));
  h.Add(PlainRequest(2, 9, 9));
  h.Add(PlainRequest(3, 1, 9));
  EXPECT_EQ(h.Step(), (Chunks{{1, 0, 4}, {2, 0, 2}}));
  EXPECT_EQ(h.Step(), (Chunks{{1, 4, 1}, {2, 2, 6}}));
  EXPECT_EQ(h.Step(), (Chunks{{1, 5, 1}, {2, 8, 1}, {3, 0, 1}}));
}

TEST(Scheduler, OneBudgetIsSharedByDecodesAndChunksOfPrompts) {
  SchedulerOptions options = SmallOptions();
  options.max_num_batched_tokens = 10;
  Harness h(options);
  h.Add(PlainRequest(1, 3, 9));
  EXPECT_EQ(h.Step(), (Chunks{{1, 0, 3}}));
  h.Add(PlainRequest(2, 25, 9));
  h.Add(PlainRequest(3, 4, 9));
  EXPECT_EQ(h.Step(), (Chunks{{1, 3, 1}, {2, 0, 9}}));
  EXPECT_EQ(h.Step(), (Chunks{{1, 4, 1}, {2, 9, 9}}));
  EXPECT_EQ(h.Step(), (Chunks{{1, 5, 1}, {2, 18, 7}, {3, 0, 2}}));
  EXPECT_EQ(h.Step(), (Chunks{{1, 6, 1}, {2, 25, 1}, {3, 2, 2}}));
}

TEST(Scheduler, APromptBeginsWhenTheOneBeforeItIsDone) {
  SchedulerOptions options = SmallOptions();
  options.max_num_batched_tokens = 8;
  Harness h(options);
  h.Add(PlainRequest(1, 30, 2));
  h.Add(PlainRequest(2, 30, 2));
  EXPECT_EQ(h.Step(), (Chunks{{1, 0, 8}}));
  EXPECT_EQ(h.Step(), (Chunks{{1, 8, 8}}));
  EXPECT_EQ(h.Step(), (Chunks{{1, 16, 8}}));
  EXPECT_EQ(h.Step(), (Chunks{{1, 24, 6}, {2, 0, 2}}));
  EXPECT_EQ(h.Step(), (Chunks{{1, 30, 1}, {2, 2, 7}}));
}

TEST(Scheduler, NoMoreSequencesRunThanTheBudgetHasTokens) {
  SchedulerOptions options = SmallOptions();
  options.max_num_batched_tokens = 2;
  Harness h(options);
  for (RequestId id = 1; id <= 3; ++id) h.Add(PlainRequest(id, 1, 3));
  EXPECT_EQ(h.Step(), (Chunks{{1, 0, 1}, {2, 0, 1}}));
  EXPECT_EQ(h.Step(), (Chunks{{1, 1, 1}, {2, 1, 1}}));
  EXPECT_EQ(h.Step(), (Chunks{{1, 2, 1}, {2, 2, 1}}));
  EXPECT_EQ(h.Step(), (Chunks{{3, 0, 1}}));
}

TEST(Scheduler, PreemptsTheYoungestAndResumesItWithAllItsTokens) {
  SchedulerOptions options = SmallOptions();
  options.num_blocks = 5;
  Harness h(options);
  h.Add(PlainRequest(1, 7, 12));  // 18 slots in the end: all 5 blocks
  h.Add(PlainRequest(2, 3, 6));   // 8 slots in the end
  EXPECT_EQ(h.Step(), (Chunks{{1, 0, 7}, {2, 0, 3}}));
  for (int64_t i = 0; i < 5; ++i) EXPECT_EQ(h.Step(), (Chunks{{1, 7 + i, 1}, {2, 3 + i, 1}}));
  h.StepUntilIdle();
  EXPECT_EQ(h.scheduler_.stats().preemptions, 0u);  // request 2 was over in time

  h.Add(PlainRequest(3, 7, 12));
  h.Add(PlainRequest(4, 3, 14));  // 16 slots in the end
  EXPECT_EQ(h.Step(), (Chunks{{3, 0, 7}, {4, 0, 3}}));
  for (int64_t i = 0; i < 5; ++i) EXPECT_EQ(h.Step(), (Chunks{{3, 7 + i, 1}, {4, 3 + i, 1}}));
  EXPECT_EQ(h.Step(), (Chunks{{3, 12, 1}}));  // 4 needs a third block, but before that 3 took the last
  EXPECT_EQ(h.scheduler_.stats().preemptions, 1u);
  EXPECT_EQ(h.scheduler_.stats().num_waiting, 1);
  for (int64_t i = 0; i < 5; ++i) EXPECT_EQ(h.Step(), (Chunks{{3, 13 + i, 1}}));
  EXPECT_EQ(h.Step(), (Chunks{{4, 0, 9}}));
  EXPECT_EQ(h.scheduler_.stats().recomputed_tokens, 8u);  // positions 0 to 7; 8 is new
  h.StepUntilIdle();
  EXPECT_EQ(h.TokensOf(4), FakeRunner::OutputOf(*PlainRequest(4, 3, 14)).tokens);
}

TEST(Scheduler, APreemptedSequenceFindsItsOwnBlocksInTheCache) {
  SchedulerOptions options = SmallOptions();
  options.num_blocks = 5;
  Harness h(options);
  h.Add(PlainRequest(1, 7, 12));
  h.Add(MakeCachedRequest(2, 3, 14));
  while (h.scheduler_.stats().preemptions == 0) h.Step();  // 2 has run 8 positions, and 1 was in need of one block
  h.scheduler_.Drop(1, 0);
  EXPECT_EQ(h.Step(), (Chunks{{2, 4, 5}}));
  EXPECT_EQ(h.scheduler_.stats().recomputed_tokens, 4u);
  EXPECT_EQ(h.scheduler_.stats().prefix_hits, 0u);  // counts what answers report: found at the first start
  h.StepUntilIdle();
  EXPECT_EQ(h.TokensOf(2), FakeRunner::OutputOf(*PlainRequest(2, 3, 14)).tokens);
}

TEST(Scheduler, AdmitsOnlyWhatFitsBesideTheNeedsOfWhoRuns) {
  SchedulerOptions options = SmallOptions();
  options.num_blocks = 6;
  options.max_num_batched_tokens = 8;
  Harness h(options);
  h.Add(PlainRequest(1, 14, 8));  // soon: 5 blocks, its prompt and one more
  h.Add(PlainRequest(2, 2, 6));   // soon: 2 blocks
  EXPECT_EQ(h.Step(), (Chunks{{1, 0, 8}}));
  EXPECT_EQ(h.Step(), (Chunks{{1, 8, 6}}));  // room for two tokens more, and 2 blocks are free
  EXPECT_EQ(h.scheduler_.stats().blocks_free, 2);
  h.StepUntilIdle();
  EXPECT_EQ(h.scheduler_.stats().preemptions, 0u);
}

TEST(Scheduler, AdmissionCountsTheNeedsOfWhoWasAdmittedInTheSameStep) {
  SchedulerOptions options = SmallOptions();
  options.num_blocks = 4;
  Harness h(options);
  h.Add(PlainRequest(1, 7, 8));  // takes 2 blocks, soon a third
  h.Add(PlainRequest(2, 3, 6));  // soon: 2 blocks
  EXPECT_EQ(h.Step(), (Chunks{{1, 0, 7}}));
  EXPECT_EQ(h.scheduler_.stats().blocks_free, 2);
}

TEST(Scheduler, RefusesWhatCouldNeverRun) {
  SchedulerOptions options = SmallOptions();
  options.num_blocks = 5;
  options.max_model_len = 25;
  Scheduler scheduler(options);
  EXPECT_THAT(std::string(scheduler.Add(PlainRequest(1, 0, 1)).message()), HasSubstr("prompt is empty"));
  EXPECT_THAT(std::string(scheduler.Add(PlainRequest(2, 1, 0)).message()), HasSubstr("max_tokens is 0"));
  EXPECT_THAT(std::string(scheduler.Add(PlainRequest(3, 20, 6)).message()), HasSubstr("are 26 tokens; at most 25"));
  EXPECT_THAT(std::string(scheduler.Add(PlainRequest(4, 1, UINT32_MAX)).message()), HasSubstr("are 4294967296 tokens"));
  EXPECT_THAT(std::string(scheduler.Add(PlainRequest(5, 20, 2)).message()), HasSubstr("need 6 blocks"));
  EXPECT_TRUE(scheduler.Add(PlainRequest(6, 20, 1)).ok());  // its last token needs no slot
  EXPECT_EQ(scheduler.stats().num_waiting, 1);
}

TEST(Scheduler, APrefixHitIsTheLongestChainOfFullBlocksButNotTheLastToken) {
  Harness h(SmallOptions());
  h.Add(MakeCachedRequest(1, 12, 1));
  EXPECT_EQ(h.Step(), (Chunks{{1, 0, 12}}));
  h.Add(MakeCachedRequest(2, 12, 1));
  EXPECT_EQ(h.Step(), (Chunks{{2, 8, 4}}));
  h.Add(MakeCachedRequest(3, 13, 1));
  EXPECT_EQ(h.Step(), (Chunks{{3, 12, 1}}));
  h.Add(MakeCachedRequest(4, 13, 1, "another salt"));
  EXPECT_EQ(h.Step(), (Chunks{{4, 0, 13}}));
  EXPECT_EQ(h.CachedTokensOf(1), 0u);
  EXPECT_EQ(h.CachedTokensOf(2), 8u);
  EXPECT_EQ(h.CachedTokensOf(3), 12u);
  EXPECT_EQ(h.CachedTokensOf(4), 0u);
  EXPECT_EQ(h.scheduler_.stats().prefix_hits, 20u);
  EXPECT_EQ(h.scheduler_.stats().prefix_queries, 12u + 12 + 13 + 13);
}

TEST(Scheduler, TheNextTurnOfAConversationHitsTheOutputOfTheLast) {
  Harness h(SmallOptions());
  auto first = MakeCachedRequest(1, 3, 14);  // the first full block has a token of the output in it
  h.Add(first);
  h.StepUntilIdle();
  auto second = MakeCachedRequest(2, 3, 1);
  for (const uint32_t token : h.TokensOf(1)) second->prompt.push_back(token);
  second->prompt.push_back(7);
  second->prompt_hashes = HashBlocks("", second->prompt, 4);
  h.Add(second);
  h.Step();
  EXPECT_EQ(h.CachedTokensOf(2), 16u);  // 16 positions of the first were run: four full blocks
}

TEST(Scheduler, WhoDoesNotReadTheCacheMayStillFeedItAndWhoBypassesItDoesNeither) {
  Harness h(SmallOptions());
  auto writer = MakeCachedRequest(1, 9, 1);
  writer->read_prefix_cache = false;
  h.Add(writer);
  h.StepUntilIdle();
  auto bypass = MakeCachedRequest(2, 9, 1);
  bypass->use_prefix_cache = false;
  h.Add(bypass);
  auto scored = MakeCachedRequest(3, 9, 1);
  scored->num_prompt_logprobs = 0;
  h.Add(scored);
  h.Add(MakeCachedRequest(4, 9, 1));
  h.StepUntilIdle();
  EXPECT_EQ(h.CachedTokensOf(2), 0u);
  EXPECT_EQ(h.CachedTokensOf(3), 0u);
  EXPECT_EQ(h.CachedTokensOf(4), 8u);
  EXPECT_EQ(h.scheduler_.stats().blocks_cached, 2);
}

TEST(Scheduler, ARowThatIsNotFiniteEndsItsRequestAloneAndItsBlocksAreForgotten) {
  Harness h(SmallOptions());
  h.Add(PlainRequest(1, 3, 5));
  auto failing = MakeCachedRequest(2, 9, 5);
  failing->sampling.seed = FakeRunner::SeedThatFailsAt(1);
  h.Add(failing);
  h.StepUntilIdle();
  EXPECT_EQ(h.TokensOf(1).size(), 5u);
  EXPECT_EQ(h.TokensOf(2).size(), 1u);
  EXPECT_EQ(h.scheduler_.stats().blocks_cached, 0);
  int num_failed = 0;
  for (const TokenEvent& event : h.events_) num_failed += event.ending == Ending::kFailed && event.request_id == 2;
  EXPECT_EQ(num_failed, 1);
  h.Add(MakeCachedRequest(3, 9, 1));
  h.StepUntilIdle();
  EXPECT_EQ(h.CachedTokensOf(3), 0u);
}

TEST(Scheduler, APromptLogprobThatIsNotANumberEndsItsRequestAlone) {
  Harness h(SmallOptions());
  h.Add(PlainRequest(1, 3, 5));
  auto failing = MakeCachedRequest(2, 9, 5);
  failing->num_prompt_logprobs = 0;
  h.Add(failing);
  h.Schedule();
  h.runner_.Run(h.batch_, h.result_);
  h.result_.prompt_logprobs[4] = std::numeric_limits<float>::quiet_NaN();
  h.scheduler_.Commit(h.now_, h.batch_, h.result_, h.events_);
  EXPECT_EQ(h.events_.back().ending, Ending::kFailed);
  EXPECT_EQ(h.events_.back().request_id, 2u);
  h.StepUntilIdle();
  EXPECT_EQ(h.TokensOf(1).size(), 5u);
  EXPECT_TRUE(h.TokensOf(2).empty());
  EXPECT_EQ(h.scheduler_.stats().blocks_cached, 0);
}

TEST(Scheduler, BlocksOfARequestThatEndsInFlightAreHeldUntilTheCommit) {
  Harness h(SmallOptions());
  h.Add(PlainRequest(1, 5, 5));
  h.Schedule();
  h.scheduler_.End(1, Ending::kCancelled, h.events_);
  EXPECT_TRUE(h.scheduler_.idle());
  EXPECT_EQ(h.scheduler_.stats().blocks_held, 2);
  EXPECT_EQ(h.events_.back().kind, EventKind::kEnded);
  const size_t num_events = h.events_.size();
  h.Commit();
  EXPECT_EQ(h.scheduler_.stats().blocks_held, 0);
  EXPECT_EQ(h.scheduler_.stats().discarded_tokens, 1u);
  EXPECT_EQ(h.scheduler_.stats().sampled_tokens, 0u);
  EXPECT_EQ(h.events_.size(), num_events);
}

TEST(Scheduler, AStopIdEndsTheOutputFromMinTokensOn) {
  Harness h(SmallOptions());
  auto request = PlainRequest(1, 3, 20);
  for (uint32_t id = 0; id < FakeRunner::kVocabSize - 1; ++id) request->stop_ids.push_back(id);  // all but one
  request->min_tokens = 9;
  h.Add(request);
  h.StepUntilIdle();
  const std::vector<uint32_t> tokens = h.TokensOf(1);
  EXPECT_GE(tokens.size(), 9u);
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(tokens[i], FakeRunner::kVocabSize - 1);
  EXPECT_EQ(h.events_.back().finish, FinishReason::kStop);
}

// The runner bans stop ids below min_tokens; should one be drawn all the same, it ends nothing.
TEST(Scheduler, AStopIdBelowMinTokensIsATokenLikeOthers) {
  Harness h(SmallOptions());
  auto request = PlainRequest(1, 3, 20);
  request->stop_ids = {5};
  request->min_tokens = 2;
  h.Add(request);
  const StepResult stop = {
      .sampled = {{.id = 5}}, .more_sampled = {}, .top = {}, .prompt_logprobs = {}, .prompt_top = {}};
  for (const FinishReason finish : {FinishReason::kNone, FinishReason::kStop}) {
    h.Schedule();
    h.scheduler_.Commit(h.now_, h.batch_, stop, h.events_);
    EXPECT_EQ(h.events_.back().finish, finish);
  }
}

TEST(Scheduler, PromptLogprobsComeOnceThoughAPreemptionInterruptsThePrompt) {
  SchedulerOptions options = SmallOptions();
  options.num_blocks = 8;
  options.max_num_batched_tokens = 3;
  Harness h(options);
  h.Add(PlainRequest(1, 1, 20));
  h.Add(PlainRequest(2, 1, 20));
  h.Step();
  auto scored = PlainRequest(3, 15, 1);  // gets one token in each step, and the others take a block each every 4 steps
  scored->num_prompt_logprobs = 1;
  h.Add(scored);
  h.StepUntilIdle();
  EXPECT_EQ(h.scheduler_.stats().preemptions, 2u);  // of 3 in the middle of its prompt, then of 2
  std::vector<uint32_t> positions;
  for (const TokenEvent& event : h.events_) {
    if (event.kind != EventKind::kPromptLogprobs) continue;
    EXPECT_EQ(event.top().size(), event.logprobs().size());
    for (size_t i = 0; i < event.logprobs().size(); ++i) {
      positions.push_back(event.first_position + static_cast<uint32_t>(i));
      EXPECT_EQ(event.logprobs()[i], FakeRunner::LogprobAt(*scored, static_cast<int32_t>(positions.back())));
    }
  }
  EXPECT_THAT(positions, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14));
}

TEST(Scheduler, APausedRequestHoldsNothingAndResumesWithAllItsTokensBeforeOthersThatWait) {
  SchedulerOptions options = SmallOptions();
  options.max_num_seqs = 2;
  Harness h(options);
  const auto first = MakeCachedRequest(1, 9, 6);
  h.Add(first);
  h.Add(PlainRequest(2, 3, 6));
  h.Add(PlainRequest(3, 3, 2));
  h.Add(PlainRequest(4, 3, 2));
  EXPECT_EQ(h.Step(), (Chunks{{1, 0, 9}, {2, 0, 3}}));
  h.scheduler_.Pause(1);
  h.scheduler_.Pause(1);
  h.scheduler_.Pause(77);
  EXPECT_EQ(h.Step(), (Chunks{{2, 3, 1}, {3, 0, 3}})) << "its seat is another's";
  EXPECT_EQ(h.scheduler_.stats().num_running, 2);
  EXPECT_EQ(h.scheduler_.stats().blocks_held, 2) << "of 2 and 3";
  EXPECT_EQ(h.scheduler_.stats().blocks_cached, 2) << "of 1";
  h.scheduler_.Resume(1);
  EXPECT_EQ(h.Step(), (Chunks{{2, 4, 1}, {3, 3, 1}}));
  EXPECT_EQ(h.Step(), (Chunks{{2, 5, 1}, {1, 8, 2}})) << "before 4, from the cache but for its unfilled block";
  h.StepUntilIdle();
  EXPECT_EQ(h.TokensOf(1), FakeRunner::OutputOf(*first).tokens);
  EXPECT_EQ(h.scheduler_.stats().pauses, 1u);
  EXPECT_EQ(h.scheduler_.stats().blocks_held, 0);
}

TEST(Scheduler, WhileAllArePausedTheBatchIsEmptyAndTheyCanStillEnd) {
  Harness h(SmallOptions());
  h.Add(PlainRequest(1, 5, 9));
  h.Add(PlainRequest(2, 5, 9));
  h.Step();
  h.Add(PlainRequest(3, 5, 9));
  for (const RequestId id : {1, 2, 3}) h.scheduler_.Pause(id);
  EXPECT_THAT(h.Step(), IsEmpty());
  EXPECT_FALSE(h.scheduler_.idle());
  EXPECT_EQ(h.scheduler_.stats().num_waiting, 3);
  h.scheduler_.End(1, Ending::kCancelled, h.events_);
  h.scheduler_.End(3, Ending::kCancelled, h.events_);
  EXPECT_THAT(h.Step(), IsEmpty());
  h.scheduler_.Resume(2);
  EXPECT_EQ(h.Step(), (Chunks{{2, 0, 6}}));
  h.StepUntilIdle();
}

TEST(Scheduler, DeadlinesEndWhoWaitsAndWhoRuns) {
  SchedulerOptions options = SmallOptions();
  options.max_num_seqs = 1;
  Harness h(options);
  auto running = PlainRequest(1, 3, 50), waiting = PlainRequest(2, 3, 50);
  running->deadline = h.now_ + absl::Seconds(5);
  waiting->deadline = h.now_ + absl::Seconds(3);
  h.Add(running);
  h.Add(waiting);
  h.Add(PlainRequest(3, 3, 2));
  h.Step();
  EXPECT_EQ(h.scheduler_.NextDeadline(), waiting->deadline);
  h.scheduler_.Expire(waiting->deadline - absl::Nanoseconds(1), h.events_);
  EXPECT_EQ(h.scheduler_.stats().num_waiting, 2);
  h.scheduler_.Expire(waiting->deadline, h.events_);
  EXPECT_EQ(h.scheduler_.stats().num_waiting, 1);
  EXPECT_EQ(h.scheduler_.NextDeadline(), running->deadline);
  h.scheduler_.Expire(running->deadline, h.events_);
  EXPECT_EQ(h.scheduler_.NextDeadline(), absl::InfiniteFuture());
  EXPECT_EQ(h.Step(), (Chunks{{3, 0, 3}}));
}

}  // namespace
}  // namespace quire
