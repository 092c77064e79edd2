#include "client/load/sweep.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quire::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The rates that a search tries against a server that keeps up to `limit`.
std::vector<double> Tried(RateSearch& search, double limit) {
  std::vector<double> rates;
  for (auto rate = search.Next(); rate.has_value() && rates.size() < 100; rate = search.Next()) {
    rates.push_back(*rate);
    search.Tell(*rate, *rate <= limit);
  }
  return rates;
}

TEST(RateSearch, DoublesThenBisects) {
  RateSearch search(1, 0.5);
  EXPECT_THAT(Tried(search, 7), ElementsAre(1, 2, 4, 8, ::testing::DoubleNear(5.657, 1e-3)));
  EXPECT_NEAR(*search.best(), 5.657, 1e-3);
}

TEST(RateSearch, FindsEveryLimitWithinThePrecision) {
  for (double limit = 0.02; limit < 1000; limit *= 1.37) {
    RateSearch search(1, 0.05);
    EXPECT_LT(Tried(search, limit).size(), 20u);
    ASSERT_TRUE(search.best().has_value()) << limit;
    EXPECT_LE(*search.best(), limit);
    EXPECT_GT(*search.best() * 1.0501, limit);
  }
}

TEST(RateSearch, GivesUpBelowASixtyFourthOfItsStart) {
  RateSearch search(64, 0.05);
  EXPECT_THAT(Tried(search, 0), ElementsAre(64, 32, 16, 8, 4, 2, 1));
  EXPECT_EQ(search.best(), std::nullopt);
}

TEST(SweepStage, HoldsIfNoMoreMissThanAllowed) {
  SweepOptions options;
  options.attainment = 0.95;
  EXPECT_EQ(StageRequests(options, 0.1), 20u);
  EXPECT_EQ(StageRequests(options, 10), 300u);
  EXPECT_EQ(MissesAllowed(options, 20), 1u);
  EXPECT_EQ(MissesAllowed(options, 19), 0u);
  options.attainment = 1;
  EXPECT_EQ(MissesAllowed(options, 1000), 0u);
  options.attainment = 0.95;
  LoadOptions load;
  RunResult run;
  run.duration_s = 10;
  Report report = MakeReport(load, run, "m", "");
  report.num_good = 19;
  EXPECT_TRUE(Summarize(options, 2, 20, run, report).holds);
  report.num_good = 18;
  EXPECT_FALSE(Summarize(options, 2, 20, run, report).holds);
  report.num_good = 20;
  EXPECT_EQ(Summarize(options, 2, 20, run, report).request_goodput, 2);
  run.gave_up = true;
  EXPECT_FALSE(Summarize(options, 2, 20, run, report).holds);
}

TEST(SweepTable, SaysWhichRateHolds) {
  SweepStage stage;
  stage.rate = 4;
  stage.attainment = 0.5;
  stage.median_p99_ms.assign(4, {1.5, std::nullopt});
  EXPECT_THAT(SweepTable({}, {stage}), HasSubstr("No rate holds: 95 % of the requests must meet every objective."));
  SweepStage good = stage;
  good.rate = 2;
  good.holds = true;
  EXPECT_THAT(SweepTable({}, {good, stage}), HasSubstr("Highest rate that holds: 2.00 requests/s"));
  EXPECT_THAT(SweepTable({}, {good, stage}), HasSubstr("4.00 requests/s does not"));
}

}  // namespace
}  // namespace quire::client
