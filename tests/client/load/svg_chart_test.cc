#include "client/load/svg_chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quire::client {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(SvgChart, SpansTheAxesFromZeroToAWholeStep) {
  const std::string svg = SvgChart({"Title", "s", "tokens/s", {{"", {{0, 0}, {9, 470}}}}});
  EXPECT_THAT(svg, HasSubstr(">10</text>")) << "x ends behind 9";
  EXPECT_THAT(svg, HasSubstr(">500</text>")) << "y ends above 470";
  EXPECT_THAT(svg, HasSubstr("d=\"M56.0,182.0L"));
}

TEST(SvgChart, OfNothingOrOfOnePointHasNoNumberThatIsNone) {
  EXPECT_THAT(SvgChart({"Title", "s", "", {{}}}), HasSubstr("no samples"));
  for (double y : {0.0, 1e-9, 3e12}) {
    const std::string svg = SvgChart({"Title", "s", "", {{"", {{0, y}}}}});
    EXPECT_THAT(svg, Not(HasSubstr("nan"))) << y;
    EXPECT_THAT(svg, Not(HasSubstr("inf"))) << y;
  }
}

TEST(SvgChart, EscapesText) {
  EXPECT_THAT(SvgChart({"a<b&\"c\"", "x", "y", {{}}}), HasSubstr("<figcaption>a&lt;b&amp;&quot;c&quot;"));
}

TEST(SvgChart, OfSeveralSeriesHasAKeyForEachAndAMarkForEachPoint) {
  Chart chart{"Title", "rps", "ms", {{"p50", {{1, 2}, {2, 3}}}, {"p<99", {{1, 4}}}}, /*marks=*/true};
  chart.y_rule = 3.5;
  chart.x_rule = 1e6;  // beyond the axis
  const std::string svg = SvgChart(chart);
  EXPECT_THAT(svg, HasSubstr("<span class=\"key s1\">p&lt;99</span>"));
  EXPECT_THAT(svg, HasSubstr("<title>p50 2 rps: 3 ms</title>"));
  EXPECT_THAT(svg, Not(HasSubstr("class=\"area"))) << "areas would hide each other";
  size_t marks = 0, rules = 0;
  for (size_t at = svg.find("<circle"); at != std::string::npos; at = svg.find("<circle", at + 1)) {
    ++marks;
  }
  for (size_t at = svg.find("class=\"rule\""); at != std::string::npos; at = svg.find("class=\"rule\"", at + 1)) {
    ++rules;
  }
  EXPECT_EQ(marks, 3u);
  EXPECT_EQ(rules, 1u);
}

}  // namespace
}  // namespace quire::client
