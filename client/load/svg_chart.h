// Line charts as inline SVG, for a report that needs nothing but itself.

#ifndef QUIRE_CLIENT_LOAD_SVG_CHART_H_
#define QUIRE_CLIENT_LOAD_SVG_CHART_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace quire::client {

struct Chart {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<std::pair<double, double>> points;  // ascending in x; finite
};

// One <figure> with an <svg>; both axes begin at 0. Colours are the page's: classes axis, grid, line, area.
std::string SvgChart(const Chart& chart);

// Text as it may stand in an element or in a quoted attribute.
std::string EscapeHtml(absl::string_view text);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_SVG_CHART_H_
