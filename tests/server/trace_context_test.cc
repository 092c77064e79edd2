// Traceparents of the W3C recommendation and of its test suite.

#include "server/trace_context.h"

#include <gtest/gtest.h>

#include <string>

namespace quire {
namespace {

const std::string kTrace = "0af7651916cd43dd8448eb211c80319c";
const std::string kParent = "b7ad6b7169203331";

TEST(TraceContext, TakesTheIdsAndTheSampledFlag) {
  const auto context = ParseTraceparent("00-" + kTrace + "-" + kParent + "-01");
  ASSERT_TRUE(context);
  EXPECT_EQ(context->trace_id, kTrace);
  EXPECT_EQ(context->parent_span_id, kParent);
  EXPECT_EQ(context->span_id, "");
  EXPECT_TRUE(context->sampled);
  EXPECT_FALSE(ParseTraceparent("00-" + kTrace + "-" + kParent + "-00")->sampled);
  EXPECT_TRUE(ParseTraceparent("00-" + kTrace + "-" + kParent + "-ff")->sampled);  // unknown flags are ignored
  EXPECT_FALSE(ParseTraceparent("00-" + kTrace + "-" + kParent + "-0a")->sampled);
}

TEST(TraceContext, ReadsTheKnownPartOfLaterVersions) {
  EXPECT_TRUE(ParseTraceparent("cc-" + kTrace + "-" + kParent + "-01"));
  EXPECT_TRUE(ParseTraceparent("cc-" + kTrace + "-" + kParent + "-01-what-the-future-brings"));
  EXPECT_FALSE(ParseTraceparent("cc-" + kTrace + "-" + kParent + "-01.what"));
}

TEST(TraceContext, TakesNothingInvalid) {
  std::string capitals = kTrace;
  capitals[1] = 'A';
  for (const std::string& value :
       {std::string(), std::string("00"), "00-" + kTrace + "-" + kParent, "00-" + kTrace + "-" + kParent + "-1",
        "00-" + kTrace + "-" + kParent + "-01-", "00-" + kTrace + "-" + kParent + "-01-more",
        "ff-" + kTrace + "-" + kParent + "-01", "0G-" + kTrace + "-" + kParent + "-01",
        "00-" + capitals + "-" + kParent + "-01", "00-" + std::string(32, '0') + "-" + kParent + "-01",
        "00-" + kTrace + "-" + std::string(16, '0') + "-01", "00-" + kTrace + "-" + kParent + "-0x",
        "00_" + kTrace + "-" + kParent + "-01", "00-" + kTrace + "_" + kParent + "-01",
        "00-" + kTrace + "-" + kParent + "_01", "00-" + kTrace.substr(1) + "--" + kParent + "-01",
        " 00-" + kTrace + "-" + kParent + "-01"}) {
    EXPECT_FALSE(ParseTraceparent(value)) << value;
  }
}

}  // namespace
}  // namespace quire
