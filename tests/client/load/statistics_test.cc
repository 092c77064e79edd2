#include "client/load/statistics.h"

#include <gtest/gtest.h>

#include <numeric>

namespace quire::client {
namespace {

Samples OneTo(int n) {
  std::vector<double> values(n);
  std::iota(values.rbegin(), values.rend(), 1.0);  // unsorted on purpose
  return Samples(values);
}

TEST(Samples, PercentilesAreNearestRank) {
  const Samples five(std::vector<double>{15, 20, 35, 40, 50});
  EXPECT_EQ(five.Percentile(5), 15);
  EXPECT_EQ(five.Percentile(30), 20);  // ceil(0.30 * 5) = rank 2
  EXPECT_EQ(five.Percentile(40), 20);  // exactly rank 2
  EXPECT_EQ(five.Percentile(50), 35);
  EXPECT_EQ(five.Percentile(100), 50);
  EXPECT_EQ(OneTo(1000).Percentile(99.9), 999) << "99.9 % of 1000 is rank 999, whatever binary makes of it";
  EXPECT_EQ(OneTo(100).Percentile(99), 99);
  EXPECT_EQ(OneTo(24).Percentile(99), 24);
}

TEST(Samples, SupportsAPercentileThatOneSampleExceeds) {
  EXPECT_TRUE(OneTo(100).Supports(99));
  EXPECT_FALSE(OneTo(99).Supports(99));
  EXPECT_TRUE(OneTo(1000).Supports(99.9));
  EXPECT_FALSE(OneTo(999).Supports(99.9));
  EXPECT_TRUE(OneTo(2).Supports(50));
}

TEST(Samples, MeanAndDeviationDivideByN) {
  const Samples samples(std::vector<double>{2, 4, 4, 4, 5, 5, 7, 9});
  EXPECT_EQ(samples.Mean(), 5);
  EXPECT_EQ(samples.StandardDeviation(), 2);
  EXPECT_EQ(samples.Median(), 4) << "the fourth of eight: a sample that did happen";
}

TEST(Samples, SayNothingOfNothing) {
  EXPECT_EQ(Samples().Mean(), std::nullopt);
  EXPECT_EQ(Samples().StandardDeviation(), std::nullopt);
  EXPECT_EQ(Samples().Percentile(50), std::nullopt);
  EXPECT_FALSE(Samples().Supports(50));
}

}  // namespace
}  // namespace quire::client
