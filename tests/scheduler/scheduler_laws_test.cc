// The laws of ARCHITECTURE.md §5 that are about scheduling, each over 10,000 random schedules. In every schedule all
// laws are checked (simulation.cc); each test below makes frequent what its law is about, and sees that it happened. A
// failure names its seed.

#include <gtest/gtest.h>

#include "absl/strings/str_join.h"
#include "tests/scheduler/simulation.h"

namespace quire {
namespace {

constexpr uint64_t kNumSchedules = 10'000;

Tally RunSchedules(Stress stress) {
  Tally tally;
  for (uint64_t seed = 0; seed < kNumSchedules; ++seed) {
    Simulation simulation(seed, stress);
    const std::vector<std::string> violations = simulation.Run();
    tally += simulation.tally();
    EXPECT_TRUE(violations.empty()) << "seed " << seed << ":\n" << absl::StrJoin(violations, "\n");
    if (!violations.empty()) break;
  }
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

}  // namespace
}  // namespace quire
