#include "server/heartbeat.h"

#include <gtest/gtest.h>

namespace quire {
namespace {

EngineSnapshot Snapshot(bool has_work, uint64_t turns) {
  EngineSnapshot snapshot;
  snapshot.has_work = has_work;
  snapshot.turns = turns;
  return snapshot;
}

absl::Time At(int seconds) { return absl::UnixEpoch() + absl::Seconds(seconds); }

TEST(HeartbeatTest, AnEngineWithWorkThatDoesNotTurnForTheLimitHangs) {
  Heartbeat heartbeat(absl::Seconds(120));
  EXPECT_TRUE(heartbeat.Beats(At(0), Snapshot(true, 7)));
  EXPECT_TRUE(heartbeat.Beats(At(100), Snapshot(true, 7)));
  EXPECT_FALSE(heartbeat.Beats(At(121), Snapshot(true, 7)));
  EXPECT_TRUE(heartbeat.Beats(At(122), Snapshot(true, 8)));
}

TEST(HeartbeatTest, AnIdleEngineBeatsAndItsFirstStepHasTheWholeLimit) {
  Heartbeat heartbeat(absl::Seconds(120));
  EXPECT_TRUE(heartbeat.Beats(At(0), Snapshot(false, 0)));
  EXPECT_TRUE(heartbeat.Beats(At(4000), Snapshot(false, 0)));
  EXPECT_TRUE(heartbeat.Beats(At(4060), Snapshot(true, 0)));
  EXPECT_FALSE(heartbeat.Beats(At(4121), Snapshot(true, 0)));
}

TEST(HeartbeatTest, TheFirstLookMayFindARunningEngine) {
  Heartbeat heartbeat(absl::Seconds(120));
  EXPECT_TRUE(heartbeat.Beats(At(0), Snapshot(true, 0)));
  EXPECT_FALSE(heartbeat.Beats(At(120), Snapshot(true, 0)));
}

}  // namespace
}  // namespace quire
