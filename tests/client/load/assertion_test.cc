#include "client/load/assertion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quire::client {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> MissesOf(absl::string_view text) {
  return Misses({*ParseAssertion(text)}, {{"p99_ttft_ms", 500.0}, {"failed", 2}, {"p99_itl_ms", nullptr}});
}

TEST(Assertion, HoldsOrSaysWhatTheFigureIs) {
  for (const char* text : {"p99_ttft_ms<=500", "p99_ttft_ms>=500", "p99_ttft_ms<500.1", "failed > 1", "failed<3"}) {
    EXPECT_THAT(MissesOf(text), IsEmpty()) << text;
  }
  EXPECT_THAT(MissesOf("p99_ttft_ms<500"), ElementsAre("p99_ttft_ms<500: it is 500"));
  EXPECT_THAT(MissesOf("failed>2"), ElementsAre("failed>2: it is 2"));
}

TEST(Assertion, OfAFigureThatIsNotThereDoesNotHold) {
  EXPECT_THAT(MissesOf("p99_itl_ms<1"), ElementsAre("p99_itl_ms<1: the result has no number of this name"));
  EXPECT_THAT(MissesOf("speed>1"), ElementsAre("speed>1: the result has no number of this name"));
}

TEST(Assertion, IsAKeyAComparisonAndANumber) {
  for (const char* text : {"", "a", "<1", "a<", "a<b", "a=1", "a==1", "a<nan", "a<inf", "a<1<2"}) {
    EXPECT_FALSE(ParseAssertion(text).ok()) << text;
  }
}

}  // namespace
}  // namespace quire::client
