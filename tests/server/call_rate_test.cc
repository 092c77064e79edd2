// CallRate: a burst, the refill, and buckets that do not pile up.

#include "server/call_rate.h"

#include <gtest/gtest.h>

namespace quire {
namespace {

const absl::Time kStart = absl::UnixEpoch();

TEST(CallRateTest, ASecondsWorthAtOnceThenAsTheyComeIn) {
  CallRate rate(10);
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(rate.Admit("a", kStart).ok()) << i;
  EXPECT_EQ(rate.Admit("a", kStart).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(rate.Admit("b", kStart).ok()) << "another connection";
  EXPECT_FALSE(rate.Admit("a", kStart + absl::Milliseconds(99)).ok());
  EXPECT_TRUE(rate.Admit("a", kStart + absl::Milliseconds(101)).ok());
  EXPECT_FALSE(rate.Admit("a", kStart + absl::Milliseconds(102)).ok());
  int admitted = 0;
  for (int i = 0; i < 50; ++i) admitted += rate.Admit("a", kStart + absl::Seconds(60)).ok();
  EXPECT_EQ(admitted, 10) << "what is not used does not pile up";
  EXPECT_TRUE(rate.Admit("c", kStart - absl::Seconds(5)).ok()) << "a clock that went back";
}

TEST(CallRateTest, ManyPeersAreForgottenOnceTheyAreQuiet) {
  CallRate rate(2);
  for (int i = 0; i < 100000; ++i) {
    EXPECT_TRUE(rate.Admit(std::to_string(i), kStart + i * absl::Milliseconds(1)).ok());
  }
  EXPECT_LE(rate.size(), 3000u);
}

}  // namespace
}  // namespace quire
