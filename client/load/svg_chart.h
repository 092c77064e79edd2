// Line charts as inline SVG, for a report that needs nothing but itself.

#ifndef QUIRE_CLIENT_LOAD_SVG_CHART_H_
#define QUIRE_CLIENT_LOAD_SVG_CHART_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace quire::client {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // ascending in x; finite
};

struct Chart {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<Series> series;
  bool marks = false;                           // a mark at each point, which says its values when pointed at
  std::optional<double> x_rule = std::nullopt;  // bounds, as broken lines; one beyond the axis is not drawn
  std::optional<double> y_rule = std::nullopt;
};

// One <figure> with an <svg>; both axes begin at 0. Colours are the page's: classes axis, grid, rule, and line, area,
// mark and key, each with s0, s1, ... of its series.
std::string SvgChart(const Chart& chart);

// Text as it may stand in an element or in a quoted attribute.
std::string EscapeHtml(absl::string_view text);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_SVG_CHART_H_
