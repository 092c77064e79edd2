#include "server/heartbeat.h"

#include <gtest/gtest.h>

namespace quire {
namespace {

EngineSnapshot Snapshot(int running, uint64_t steps) {
  EngineSnapshot snapshot;
  snapshot.scheduler.num_running = running;
  snapshot.scheduler.steps = steps;
  return snapshot;
}

absl::Time At(int seconds) { return absl::UnixEpoch() + absl::Seconds(seconds); }

TEST(HeartbeatTest, AnEngineThatCommitsNoStepForTheLimitHangs) {
  Heartbeat heartbeat(absl::Seconds(120));
  EXPECT_TRUE(heartbeat.Beats(At(0), Snapshot(1, 7)));
  EXPECT_TRUE(heartbeat.Beats(At(100), Snapshot(1, 7)));
  EXPECT_FALSE(heartbeat.Beats(At(121), Snapshot(1, 7)));
  EXPECT_TRUE(heartbeat.Beats(At(122), Snapshot(1, 8)));
}

TEST(HeartbeatTest, AnIdleEngineBeatsAndItsFirstStepHasTheWholeLimit) {
  Heartbeat heartbeat(absl::Seconds(120));
  EXPECT_TRUE(heartbeat.Beats(At(0), Snapshot(0, 0)));
  EXPECT_TRUE(heartbeat.Beats(At(4000), Snapshot(0, 0)));
  EXPECT_TRUE(heartbeat.Beats(At(4060), Snapshot(1, 0)));
  EXPECT_FALSE(heartbeat.Beats(At(4121), Snapshot(1, 0)));
}

TEST(HeartbeatTest, TheFirstLookMayFindARunningEngine) {
  Heartbeat heartbeat(absl::Seconds(120));
  EXPECT_TRUE(heartbeat.Beats(At(0), Snapshot(1, 0)));
  EXPECT_FALSE(heartbeat.Beats(At(120), Snapshot(1, 0)));
}

}  // namespace
}  // namespace quire
