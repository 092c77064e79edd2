#include "client/load/svg_chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quire::client {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(SvgChart, SpansTheAxesFromZeroToAWholeStep) {
  const std::string svg = SvgChart({"Title", "s", "tokens/s", {{0, 0}, {9, 470}}});
  EXPECT_THAT(svg, HasSubstr(">10</text>")) << "x ends behind 9";
  EXPECT_THAT(svg, HasSubstr(">500</text>")) << "y ends above 470";
  EXPECT_THAT(svg, HasSubstr("d=\"M56.0,182.0L"));
}

TEST(SvgChart, OfNothingOrOfOnePointHasNoNumberThatIsNone) {
  EXPECT_THAT(SvgChart({"Title", "s", "", {}}), HasSubstr("no samples"));
  for (double y : {0.0, 1e-9, 3e12}) {
    const std::string svg = SvgChart({"Title", "s", "", {{0, y}}});
    EXPECT_THAT(svg, Not(HasSubstr("nan"))) << y;
    EXPECT_THAT(svg, Not(HasSubstr("inf"))) << y;
  }
}

TEST(SvgChart, EscapesText) {
  EXPECT_THAT(SvgChart({"a<b&\"c\"", "x", "y", {}}), HasSubstr("<figcaption>a&lt;b&amp;&quot;c&quot;"));
}

}  // namespace
}  // namespace quire::client
