// Who is refused at the door, why, and when he is told to come again.

#include "scheduler/admission.h"

#include <gtest/gtest.h>

namespace quire {
namespace {

const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);

// 1,000 prompt tokens a second, steps of 10 ms, an admission each 100 ms, outputs of 50 tokens.
LoadEstimate Measured() {
  LoadEstimate load;
  absl::Time now = kNow - absl::Seconds(1);
  load.OnScheduled(now, 1, /*queue_is_left=*/true);
  for (int i = 0; i < 10; ++i) {
    now += absl::Milliseconds(100);
    load.OnScheduled(now, 1, /*queue_is_left=*/true);
    load.OnStep(now, absl::Milliseconds(100), 100, 100);
    load.OnOutput(50);
  }
  for (int i = 0; i < 1000; ++i) load.OnStep(now, absl::Milliseconds(10), 8, 0);
  return load;
}

Candidate Waiting(int64_t num_sequences, int64_t num_tokens) {
  Candidate candidate;
  candidate.num_tokens = 100;
  candidate.max_tokens = 50;
  candidate.ahead = candidate.all = candidate.of_tenant = {num_sequences, num_tokens};
  return candidate;
}

TEST(Admission, LimitsOfTokensCountTheRequestItselfAndSayWhenTheBacklogIsBelow) {
  const AdmissionLimits limits = {.max_waiting_tokens = 1000};
  EXPECT_FALSE(Judge(limits, Measured(), kNow, Waiting(9, 900)));
  const auto refusal = Judge(limits, Measured(), kNow, Waiting(10, 1000));
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->ending, Ending::kRefused);
  EXPECT_NEAR(absl::ToDoubleSeconds(refusal->retry_delay), 0.1, 0.001);  // one of 100 tokens must go
  EXPECT_NEAR(absl::ToDoubleSeconds(Judge(limits, Measured(), kNow, Waiting(20, 2000))->retry_delay), 1.1, 0.01);
  EXPECT_FALSE(Judge(limits, Measured(), kNow, Waiting(0, 0)));
  Candidate startable = Waiting(10, 1000);
  startable.can_start = true;
  EXPECT_FALSE(Judge(limits, Measured(), kNow, startable));
}

TEST(Admission, LimitsOfATenantCountOnlyItsOwn) {
  AdmissionLimits limits = {.max_waiting_requests_per_tenant = 5};
  Candidate candidate = Waiting(100, 10'000);
  candidate.of_tenant = {4, 400};
  EXPECT_FALSE(Judge(limits, Measured(), kNow, candidate));
  candidate.of_tenant = {5, 500};
  ASSERT_TRUE(Judge(limits, Measured(), kNow, candidate));
  EXPECT_NEAR(absl::ToDoubleSeconds(Judge(limits, Measured(), kNow, candidate)->retry_delay), 2, 0.01);
  limits = {.max_waiting_tokens_per_tenant = 550};
  EXPECT_TRUE(Judge(limits, Measured(), kNow, candidate));
  candidate.of_tenant = {4, 450};
  EXPECT_FALSE(Judge(limits, Measured(), kNow, candidate));
}

TEST(Admission, ADeadlineThatThePromptCannotMeetIsRefusedAtOnce) {
  Candidate candidate = Waiting(19, 1900);
  candidate.deadline = kNow + absl::Milliseconds(1999);
  ASSERT_TRUE(Judge({}, Measured(), kNow, candidate));
  EXPECT_EQ(Judge({}, Measured(), kNow, candidate)->ending, Ending::kDeadlineUnreachable);
  candidate.can_start = true;  // by its own prompt too
  candidate.ahead = {};
  candidate.num_tokens = 2000;
  EXPECT_EQ(Judge({}, Measured(), kNow, candidate)->ending, Ending::kDeadlineUnreachable);
  EXPECT_FALSE(Judge({}, LoadEstimate(), kNow, candidate));                 // nothing was measured
  EXPECT_FALSE(Judge({}, Measured(), kNow + absl::Minutes(2), candidate));  // too long ago, and expired besides
}

TEST(Admission, WhatTheQueueAloneMakesTooLateIsToldWhenToCome) {
  // Alone it takes 100 ms for the prompt and 500 ms for the output; a quarter is added, to the queue too.
  Candidate candidate = Waiting(9, 90);  // a second until it starts
  candidate.deadline = kNow + absl::Milliseconds(1950);
  const auto refusal = Judge({}, Measured(), kNow, candidate);
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->ending, Ending::kRefused);
  EXPECT_NEAR(absl::ToDoubleSeconds(refusal->retry_delay), 0.05, 0.002);
  candidate.deadline = kNow + absl::Milliseconds(2050);
  EXPECT_FALSE(Judge({}, Measured(), kNow, candidate));
  candidate.deadline =
      kNow + absl::Milliseconds(500);  // without a queue it would not be done either: it gets what it can
  EXPECT_FALSE(Judge({}, Measured(), kNow, candidate));
}

TEST(Admission, WhoseTurnComesTooLateDoesNotStart) {
  Candidate candidate = Waiting(0, 0);  // 600 ms, and a quarter is added
  candidate.deadline = kNow + absl::Milliseconds(800);
  const absl::Time arrival = kNow - absl::Seconds(1);
  EXPECT_TRUE(IsWorthStarting(Measured(), kNow, candidate, arrival));
  EXPECT_FALSE(IsWorthStarting(Measured(), kNow + absl::Milliseconds(100), candidate, arrival));
  candidate.max_tokens = 30;
  EXPECT_TRUE(IsWorthStarting(Measured(), kNow + absl::Milliseconds(100), candidate, arrival));
  candidate.deadline = absl::InfiniteFuture();
  EXPECT_TRUE(IsWorthStarting(Measured(), kNow, candidate, arrival));
}

TEST(LoadEstimate, AQueueThatStandsStillIsNotTakenForAFastOne) {
  const LoadEstimate load = Measured();
  EXPECT_NEAR(absl::ToDoubleSeconds(load.QueueTime(kNow, 1)), 0.1, 0.001);
  EXPECT_NEAR(absl::ToDoubleSeconds(load.QueueTime(kNow + absl::Seconds(5), 1)), 5, 0.001);
  EXPECT_EQ(RetryDelay(load.QueueTime(kNow + absl::Hours(5), 1)), absl::Seconds(60));
  EXPECT_EQ(RetryDelay(LoadEstimate().QueueTime(kNow, 1)), absl::Milliseconds(10));
}

TEST(LoadEstimate, AStepThatWasHeldUpDoesNotShutTheDoor) {
  LoadEstimate load = Measured();
  EXPECT_NEAR(absl::ToDoubleSeconds(load.PrefillTime(kNow, 100)), 0.1, 0.001);
  load.OnStep(kNow, absl::Seconds(20), 100, 100);  // the machine paused
  EXPECT_LT(load.PrefillTime(kNow, 100), absl::Milliseconds(250));
  // Nobody was taken for a while: what comes is measured anew.
  const absl::Time later = kNow + absl::Seconds(11);
  EXPECT_EQ(load.PrefillTime(later, 100), absl::ZeroDuration());
  load.OnStep(later, absl::Milliseconds(10), 100, 100);
  EXPECT_NEAR(absl::ToDoubleSeconds(load.PrefillTime(later, 100)), 0.01, 1e-6);
}

TEST(LoadEstimate, AnOutputOfManyShortStepsTakesTheirSumHeldUpOrNot) {
  LoadEstimate load;
  load.OnOutput(500);
  for (int i = 0; i < 1000; ++i) {  // each tenth takes ten times as long
    load.OnStep(kNow, i % 10 == 9 ? absl::Milliseconds(10) : absl::Milliseconds(1), 8, 0);
    if (i > 300) {
      EXPECT_NEAR(absl::ToDoubleSeconds(load.OutputTime(500)), 0.95, 0.02) << i;
    }
  }
  for (int i = 0; i < 150; ++i) load.OnStep(kNow, absl::Milliseconds(100), 8, 0);  // a change lasts
  EXPECT_NEAR(absl::ToDoubleSeconds(load.OutputTime(500)), 50, 5);
}

TEST(LoadEstimate, AFewPositionsSayNothingOfPrefill) {
  LoadEstimate load;
  for (int i = 0; i < 100; ++i) load.OnStep(kNow, absl::Milliseconds(10), 3, 3);  // all but three were cached
  EXPECT_EQ(load.PrefillTime(kNow, 10'000), absl::ZeroDuration());
}

TEST(LoadEstimate, StepsThatMostlyDecodeSayNothingOfPrefill) {
  LoadEstimate load;
  load.OnStep(kNow, absl::Milliseconds(10), 100, 10);
  EXPECT_EQ(load.PrefillTime(kNow, 1000), absl::ZeroDuration());
  load.OnStep(kNow, absl::Milliseconds(10), 100, 60);
  EXPECT_NEAR(absl::ToDoubleSeconds(load.PrefillTime(kNow, 1000)), 0.1, 1e-6);
}

}  // namespace
}  // namespace quire
