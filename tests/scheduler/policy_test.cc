// The policies in hand-worked schedules, and time: queue deadlines, time limits, deadlines that cannot be met.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "scheduler/scheduler.h"
#include "tests/scheduler/fake_runner.h"
#include "tests/scheduler/plain_request.h"

namespace quire {
namespace {

using testing::ElementsAre;

// Steps of 10 ms.
class PolicyTest : public testing::Test {
 protected:
  void Start(const SchedulerOptions& options) {
    scheduler_ = std::make_unique<Scheduler>(options);
    runner_ = std::make_unique<FakeRunner>(options);
  }
  void Submit(const std::shared_ptr<Request>& request) {
    request->arrival = now_;
    scheduler_->Submit(request, now_, events_);
  }
  std::vector<RequestId> Step() {
    scheduler_->Expire(now_, events_);
    scheduler_->Schedule(now_, batch_, events_);
    std::vector<RequestId> ids;
    for (const Chunk& chunk : batch_.chunks) ids.push_back(chunk.sequence->request().id);
    runner_->Run(batch_, result_);
    EXPECT_TRUE(runner_->violations().empty());
    now_ += absl::Milliseconds(10);
    scheduler_->Commit(now_, batch_, result_, events_);
    return ids;
  }
  // Of the request's last event.
  const TokenEvent& LastOf(RequestId id) const {
    for (auto event = events_.rbegin(); event != events_.rend(); ++event) {
      if (event->request_id == id) return *event;
    }
    ADD_FAILURE() << "no event of request " << id;
    return events_.back();
  }
  int NumTokens(RequestId id) const {
    return static_cast<int>(std::count_if(events_.begin(), events_.end(), [&](const TokenEvent& event) {
      return event.request_id == id && event.kind == EventKind::kToken;
    }));
  }

  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<FakeRunner> runner_;
  absl::Time now_ = absl::UnixEpoch();
  Batch batch_;
  StepResult result_;
  std::vector<TokenEvent> events_;
};

SchedulerOptions Options(SchedulingPolicy policy, int32_t max_num_seqs) {
  SchedulerOptions options;
  options.block_size = 4;
  options.num_blocks = 100;
  options.max_num_seqs = max_num_seqs;
  options.max_num_batched_tokens = 100;
  options.max_model_len = 300;
  options.policy = policy;
  return options;
}

std::shared_ptr<Request> WithPriority(RequestId id, int32_t priority, uint32_t max_tokens = 50) {
  auto request = PlainRequest(id, 3, max_tokens);
  request->priority = priority;
  return request;
}

TEST_F(PolicyTest, AHigherPriorityTakesTheSeatOfTheLowest) {
  Start(Options(SchedulingPolicy::kPriority, 2));
  Submit(WithPriority(1, 5));
  Submit(WithPriority(2, 7));
  Submit(WithPriority(3, 6));
  EXPECT_THAT(Step(), ElementsAre(1, 3));
  Submit(WithPriority(4, -1, 2));
  EXPECT_THAT(Step(), ElementsAre(4, 1));
  EXPECT_EQ(scheduler_->stats().preemptions, 1u);
  EXPECT_THAT(Step(), ElementsAre(4, 1));
  EXPECT_THAT(Step(), ElementsAre(1, 3));
  while (!scheduler_->idle()) Step();
  for (RequestId id = 1; id <= 3; ++id) EXPECT_EQ(NumTokens(id), 50) << id;
}

TEST_F(PolicyTest, EqualPrioritiesAreServedInOrderOfArrivalAndPreemptNobody) {
  Start(Options(SchedulingPolicy::kPriority, 1));
  for (RequestId id = 1; id <= 3; ++id) Submit(WithPriority(id, 2, 2));
  EXPECT_THAT(Step(), ElementsAre(1));
  EXPECT_THAT(Step(), ElementsAre(1));
  EXPECT_THAT(Step(), ElementsAre(2));
  EXPECT_EQ(scheduler_->stats().preemptions, 0u);
}

TEST_F(PolicyTest, AgeMakesUpForPriority) {
  SchedulerOptions options = Options(SchedulingPolicy::kPriority, 1);
  options.priority_aging = absl::Milliseconds(100);
  Start(options);
  Submit(WithPriority(1, 0));
  Step();
  Submit(WithPriority(2, 3, 1));
  RequestId id = 3;
  while (NumTokens(2) == 0 && now_ < absl::UnixEpoch() + absl::Seconds(2)) {
    Submit(WithPriority(id++, 0, 1));  // one for each step: without ageing, 2 would never have a turn
    Step();
  }
  // Three priorities are 300 ms, and those who came within that time go first.
  EXPECT_EQ(NumTokens(2), 1);
  EXPECT_GE(now_, absl::UnixEpoch() + absl::Milliseconds(300));
}

TEST_F(PolicyTest, AHigherPriorityTakesTheBlocksOfLowerOnes) {
  SchedulerOptions options = Options(SchedulingPolicy::kPriority, 8);
  options.num_blocks = 10;
  Start(options);
  for (RequestId id = 1; id <= 3; ++id) Submit(WithPriority(id, 4, 10));
  EXPECT_EQ(Step().size(), 3u);
  auto high = PlainRequest(4, 30, 2);
  high->priority = -4;
  Submit(high);
  EXPECT_EQ(Step().front(), 4u);
  EXPECT_GE(scheduler_->stats().preemptions, 2u);
  while (!scheduler_->idle()) Step();
  for (RequestId id = 1; id <= 3; ++id) EXPECT_EQ(NumTokens(id), 10) << id;
}

// Of two tenants that are always backlogged one sends twenty times as many requests, and longer ones.
TEST_F(PolicyTest, BackloggedTenantsGetEqualShares) {
  for (const double weight : {1.0, 3.0}) {
    SchedulerOptions options = Options(SchedulingPolicy::kFair, 4);
    if (weight != 1) options.tenant_weights = {{"few", weight}};
    Start(options);
    TestRandom random(7);
    RequestId next = 1;
    std::map<std::string, double> served;
    std::map<RequestId, std::string> tenants;
    std::map<std::string, int> live;
    events_.clear();
    for (int step = 0; step < 6000; ++step) {
      for (const auto& [tenant, most] : std::map<std::string, int>{{"many", 160}, {"few", 8}}) {
        if (tenant == "few" && step < 500) continue;  // idle: it builds no credit
        for (; live[tenant] < most; ++live[tenant]) {
          auto request = PlainRequest(next, tenant == "many" ? random.Between(5, 50) : 10, random.Between(1, 40));
          request->tenant = tenant;
          tenants[next++] = tenant;
          Submit(request);
        }
      }
      Step();
      for (const TokenEvent& event : events_) {
        const std::string& tenant = tenants[event.request_id];
        if (event.kind == EventKind::kToken && event.finish != FinishReason::kNone) --live[tenant];
        if (step < 500) continue;
        if (event.kind == EventKind::kToken) served[tenant] += FairShare::kOutputCost;
        if (event.kind == EventKind::kStarted) served[tenant] += tenant == "few" ? 10 : 27.5;
      }
      events_.clear();
    }
    const double share = served["few"] / (served["few"] + served["many"]);
    EXPECT_NEAR(share, weight / (weight + 1), 0.02) << "weight " << weight;
  }
}

TEST_F(PolicyTest, WhoDoesNotStartInItsQueueTimeExpiresAndWhoDoesMayRunLonger) {
  Start(Options(SchedulingPolicy::kFcfs, 1));
  auto first = PlainRequest(1, 3, 20), second = PlainRequest(2, 3, 20);
  first->queue_deadline = second->queue_deadline = now_ + absl::Milliseconds(50);
  Submit(first);
  Submit(second);
  while (!scheduler_->idle()) Step();
  EXPECT_EQ(NumTokens(1), 20);
  EXPECT_EQ(LastOf(2).ending, Ending::kQueueTimeExceeded);
  EXPECT_EQ(NumTokens(2), 0);
}

TEST_F(PolicyTest, ATimeLimitStopsWhatRunsAndWhatWaitsWithWhatTheyHave) {
  Start(Options(SchedulingPolicy::kFcfs, 1));
  auto running = PlainRequest(1, 3, 20), waiting = PlainRequest(2, 3, 20);
  running->time_limit = waiting->time_limit = now_ + absl::Milliseconds(50);
  Submit(running);
  Submit(waiting);
  while (!scheduler_->idle()) Step();
  for (const RequestId id : {1, 2}) {
    EXPECT_EQ(LastOf(id).kind, EventKind::kStopped);
    EXPECT_EQ(LastOf(id).finish, FinishReason::kTimeLimit);
    EXPECT_EQ(NumTokens(id), id == 1 ? 5 : 0);
  }
  EXPECT_EQ(scheduler_->stats().blocks_held, 0);
}

TEST_F(PolicyTest, APromptThatCannotBeComputedInTimeIsRefusedWhenItComesAndNeverRuns) {
  SchedulerOptions options = Options(SchedulingPolicy::kFcfs, 4);
  Start(options);
  Submit(PlainRequest(1, 100, 1));
  Step();  // 100 tokens in 10 ms
  for (RequestId id = 2; id <= 10; ++id) Submit(PlainRequest(id, 100, 100));
  auto late = PlainRequest(11, 100, 1), in_time = PlainRequest(12, 100, 1);
  late->deadline = now_ + absl::Milliseconds(95);
  in_time->deadline = now_ + absl::Milliseconds(400);
  Submit(late);
  EXPECT_EQ(LastOf(11).ending, Ending::kDeadlineUnreachable);
  Submit(in_time);
  EXPECT_EQ(scheduler_->stats().num_waiting, 10);
  auto cached = PlainRequest(13, 100, 1);
  EXPECT_EQ(scheduler_->stats().computed_tokens, 1u);
}

TEST_F(PolicyTest, PrefixHitsAreNotHeldAgainstADeadline) {
  Start(Options(SchedulingPolicy::kFcfs, 4));
  const auto hashed = [](RequestId id) {
    auto request = PlainRequest(id, 100, 1);
    request->use_prefix_cache = true;
    request->root_hash = RootHash("");
    request->prompt_hashes = HashBlocks("", request->prompt, 4);
    return request;
  };
  Submit(hashed(1));
  Step();
  auto hit = hashed(2), miss = PlainRequest(3, 100, 1);
  hit->deadline = miss->deadline = now_ + absl::Milliseconds(5);
  Submit(hit);
  Submit(miss);
  EXPECT_EQ(scheduler_->stats().num_waiting, 1);
  EXPECT_EQ(LastOf(3).ending, Ending::kDeadlineUnreachable);
}

// An open loop of requests with deadlines against a model of a device: a step takes 4 ms and 0.05 ms for each row.
// Those that finish in time, by the second.
class Overload {
 public:
  explicit Overload(SchedulingPolicy policy) : options_(Options(policy, 8)) {
    options_.num_blocks = 1000;
    options_.enable_prefix_caching = false;
  }

  double Goodput(double per_second, absl::Duration time_to_live) {
    Scheduler scheduler(options_);
    FakeRunner runner(options_);
    TestRandom random(3);
    absl::Time now = absl::UnixEpoch(), next_arrival = now;
    const absl::Time end = now + absl::Seconds(60);
    std::vector<TokenEvent> events;
    Batch batch;
    StepResult result;
    RequestId id = 1;
    int num_good = 0;
    while (now < end) {
      for (; next_arrival <= now; next_arrival += absl::Seconds(2 * random.Between(0, 1000) / 1000.0 / per_second)) {
        auto request = PlainRequest(id++, random.Between(20, 100), random.Between(30, 90));
        request->arrival = next_arrival;
        request->deadline = next_arrival + time_to_live;
        request->priority = random.Between(0, 2);
        request->tenant = std::string(1, static_cast<char>('a' + random.Between(0, 3)));
        scheduler.Submit(request, now, events);
      }
      scheduler.Expire(now, events);
      scheduler.Schedule(now, batch, events);
      runner.Run(batch, result);
      now += absl::Milliseconds(4) + batch.num_tokens * absl::Microseconds(50);
      scheduler.Commit(now, batch, result, events);
      for (const TokenEvent& event : events) {
        num_good += event.kind == EventKind::kToken && event.finish != FinishReason::kNone ? 1 : 0;
      }
      events.clear();
    }
    return num_good / 60.0;
  }

 private:
  SchedulerOptions options_;
};

TEST(OverloadTest, TenTimesTheLoadKeepsGoodputWithinATenthOfItsPeak) {
  for (const SchedulingPolicy policy :
       {SchedulingPolicy::kFcfs, SchedulingPolicy::kPriority, SchedulingPolicy::kFair}) {
    for (const absl::Duration time_to_live : {absl::Seconds(1), absl::Seconds(3)}) {
      Overload overload(policy);
      double peak = 0;
      for (const double load : {10, 14, 18, 22, 26, 30}) peak = std::max(peak, overload.Goodput(load, time_to_live));
      const double at_ten = overload.Goodput(200, time_to_live);
      EXPECT_GE(at_ten, 0.9 * peak) << "policy " << static_cast<int>(policy) << ", deadline " << time_to_live;
      RecordProperty("peak", std::to_string(peak));
      RecordProperty("at_ten", std::to_string(at_ten));
      std::printf("policy %d deadline %g s: peak %.1f/s, at 200/s %.1f/s\n", static_cast<int>(policy),
                  absl::ToDoubleSeconds(time_to_live), peak, at_ten);
    }
  }
}

}  // namespace
}  // namespace quire
