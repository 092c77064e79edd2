// The laws of ARCHITECTURE.md §5 that are about scheduling, each over 20,000 random schedules. In every schedule all
// laws are checked (simulation.cc); each test below makes frequent what its law is about, and sees that it happened. A
// failure names its seed.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/scheduler/simulation.h"

namespace quire {
namespace {

constexpr uint64_t kNumSchedules = 20'000;

// Each of 10,000 lives under a scheduler that waits for each batch, and under one that runs ahead of the device.
Tally RunSchedules(Stress stress) {
  Tally tally;
  for (uint64_t i = 0; i < kNumSchedules; ++i) {
    const Life life = {
        .seed = i / 2, .stress = stress, .run_ahead = static_cast<int32_t>(i % 2), .no_requests = {}, .no_acts = {}};
    Simulation simulation(life);
    const bool held = simulation.Run().empty();
    tally += simulation.tally();
    EXPECT_TRUE(held) << Shrunk(life);
    if (!held) break;
  }
  EXPECT_GT(tally.events, 220'000u);  // with all stresses, more than two million
  EXPECT_GT(tally.drawn_taken, kNumSchedules);
  return tally;
}

TEST(SchedulerLaws, Law1ConservationOfBlocks) {
  const Tally tally = RunSchedules(Stress::kNothing);
  EXPECT_GT(tally.accepted, 2 * kNumSchedules);
  EXPECT_GT(tally.preemptions, 0u);
  EXPECT_GT(tally.cached_tokens, 0u);
}

TEST(SchedulerLaws, Law2ProgressInPoolsThatBarelyHoldOneSequence) {
  const Tally tally = RunSchedules(Stress::kPreemption);
  EXPECT_GT(tally.preemptions, kNumSchedules / 2);
  EXPECT_GT(tally.refused, 0u);
}

TEST(SchedulerLaws, Law3ExactlyOneEndingOfEachRequest) {
  const Tally tally = RunSchedules(Stress::kDepartures);
  EXPECT_EQ(tally.accepted, tally.finished + tally.ended + tally.dropped);
  EXPECT_GT(tally.ended, kNumSchedules / 2);
  EXPECT_GT(tally.dropped, kNumSchedules / 4);
  EXPECT_GT(tally.ended_in_flight, kNumSchedules / 4);
}

TEST(SchedulerLaws, Law4ChunksAreInvisible) {
  const Tally tally = RunSchedules(Stress::kChunks);
  EXPECT_GT(tally.partial_chunks, kNumSchedules);
}

TEST(SchedulerLaws, Law6PreemptionIsInvisible) {
  const Tally tally = RunSchedules(Stress::kPreemptionWithoutCache);
  EXPECT_GT(tally.preemptions, kNumSchedules / 2);
}

TEST(SchedulerLaws, Law7PrefixHitsAreInvisible) {
  const Tally tally = RunSchedules(Stress::kPrefixHits);
  EXPECT_GT(tally.cached_tokens, kNumSchedules);
}

// All of them, where requests have several outputs.
TEST(SchedulerLaws, OutputsOfOnePromptAreThoseOfRequestsOfTheirOwn) {
  const Tally tally = RunSchedules(Stress::kOutputs);
  EXPECT_GT(tally.block_copies, kNumSchedules);
  EXPECT_GT(tally.preemptions, 0u);
  EXPECT_GT(tally.dropped, 0u);
}

// All of them, where layers are of several groups, with and without sliding windows.
TEST(SchedulerLaws, AllLawsHoldForMixedGroupsOfLayers) {
  const Tally tally = RunSchedules(Stress::kGroups);
  EXPECT_GT(tally.accepted, 2 * kNumSchedules);
  EXPECT_GT(tally.refused, 0u);
  EXPECT_GT(tally.preemptions, 0u);
  EXPECT_GT(tally.cached_tokens_of_windows, 0u);
}

TEST(SchedulerLaws, AllLawsHoldForEveryPolicy) {
  const Tally tally = RunSchedules(Stress::kPolicies);
  EXPECT_GT(tally.preemptions, kNumSchedules / 10);
  EXPECT_GT(tally.queue_times, kNumSchedules / 50);
  EXPECT_GT(tally.time_limits, kNumSchedules / 50);
  EXPECT_GT(tally.pauses, kNumSchedules / 10);
  EXPECT_GT(tally.engine_ends, kNumSchedules / 50);
}

TEST(SchedulerLaws, AllLawsHoldWhereThingsFail) {
  const Tally tally = RunSchedules(Stress::kFaults);
  EXPECT_GT(tally.block_faults, kNumSchedules);
  EXPECT_GT(tally.runner_errors, kNumSchedules / 10);
  EXPECT_GT(tally.slow_steps, kNumSchedules / 10);
  EXPECT_GT(tally.failed_rows, kNumSchedules / 10);
  EXPECT_GT(tally.preemptions, kNumSchedules / 10);
  EXPECT_GT(tally.finished, kNumSchedules);
}

TEST(SchedulerLaws, AllLawsHoldWhereRequestsAreRefused) {
  const Tally tally = RunSchedules(Stress::kAdmission);
  EXPECT_GT(tally.refused, kNumSchedules / 10);
  EXPECT_GT(tally.unreachable, kNumSchedules / 50);
  EXPECT_GT(tally.finished, kNumSchedules);
}

// Should a law be broken, the test says in how small a life.
TEST(SchedulerLaws, ABrokenLawIsShownInASmallLife) {
  Life life = {.seed = 0, .stress = Stress::kDepartures, .no_requests = {}, .no_acts = {}, .planted_fault = 20};
  for (;; ++life.seed) {
    Simulation simulation(life);
    if (!simulation.Run().empty() && simulation.num_requests() >= 5) break;
  }
  const std::string shrunk = Shrunk(life);
  EXPECT_THAT(shrunk, testing::HasSubstr("planted: a long prompt starts"));
  EXPECT_THAT(shrunk, testing::ContainsRegex("requests that are left: [1-3]\n"));
}

}  // namespace
}  // namespace quire
