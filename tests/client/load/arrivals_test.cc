#include "client/load/arrivals.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace quire::client {
namespace {

constexpr size_t kCount = 20000;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Variance of the gaps over the square of their mean: 1 / burstiness.
double SquaredVariation(const std::vector<double>& times) {
  const double mean = times.back() / static_cast<double>(times.size());
  double squares = 0, before = 0;
  for (double time : times) {
    squares += (time - before - mean) * (time - before - mean);
    before = time;
  }
  return squares / static_cast<double>(times.size()) / (mean * mean);
}

TEST(ArrivalTimes, HaveTheRateAskedFor) {
  for (double burstiness : {0.5, 1.0, 4.0}) {
    const std::vector<double> times = ArrivalTimes(kCount, {50, burstiness}, 1);
    // The mean of n gaps deviates by 1 / sqrt(n * burstiness) of itself: three of those.
    EXPECT_NEAR(times.back() / kCount, 1.0 / 50, 0.03 / 50) << burstiness;
    EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
  }
}

TEST(ArrivalTimes, AreAPoissonProcessAtBurstinessOne) {
  EXPECT_NEAR(SquaredVariation(ArrivalTimes(kCount, {10, 1}, 2)), 1.0, 0.1);
}

TEST(ArrivalTimes, AreBurstierBelowAndMoreEvenAbove) {
  EXPECT_NEAR(SquaredVariation(ArrivalTimes(kCount, {10, 0.25}, 3)), 4.0, 0.5);
  EXPECT_NEAR(SquaredVariation(ArrivalTimes(kCount, {10, 10}, 3)), 0.1, 0.01);
}

TEST(ArrivalTimes, AreConstantAtInfiniteBurstiness) {
  const std::vector<double> times = ArrivalTimes(4, {10, kInfinity}, 3);
  for (size_t i = 0; i < times.size(); ++i) {
    EXPECT_NEAR(times[i], 0.1 * static_cast<double>(i + 1), 1e-12);
  }
}

TEST(ArrivalTimes, OfARampGoFromOneRateToTheOther) {
  for (bool exponential : {false, true}) {
    const std::vector<double> times = ArrivalTimes(101, {kInfinity, kInfinity, Ramp{exponential, 1, 16}}, 3);
    EXPECT_NEAR(times[0], 1, 1e-12);
    EXPECT_NEAR(times[100] - times[99], 1.0 / 16, 1e-12);
    EXPECT_NEAR(times[50] - times[49], 1 / (exponential ? 4 : 8.5), 1e-12);
  }
}

TEST(ArrivalTimes, AreAFunctionOfTheSeed) {
  EXPECT_EQ(ArrivalTimes(100, {10, 1}, 7), ArrivalTimes(100, {10, 1}, 7));
  EXPECT_NE(ArrivalTimes(100, {10, 1}, 7), ArrivalTimes(100, {10, 1}, 8));
}

TEST(ArrivalTimes, AreAllNowAtAnInfiniteRate) {
  EXPECT_EQ(ArrivalTimes(3, {kInfinity, 1}, 1), std::vector<double>(3, 0.0));
}

}  // namespace
}  // namespace quire::client
