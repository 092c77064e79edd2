#include "client/load/svg_chart.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace quire::client {
namespace {

// Of the drawing, in its own units.
constexpr double kWidth = 460, kHeight = 220;
constexpr double kLeft = 56, kRight = 12, kTop = 10, kBottom = 38;
constexpr double kTicks = 5;

// The step of 1, 2 or 5 times a power of ten that divides `most` into about kTicks parts.
double TickStep(double most) {
  const double raw = most / kTicks;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  for (double factor : {1.0, 2.0, 5.0}) {
    if (raw <= factor * power * (1 + 1e-9)) {
      return factor * power;
    }
  }
  return 10 * power;
}

// The end of an axis that holds all values: a whole number of steps.
double AxisEnd(double most) {
  most = most > 0 ? most : 1;
  return TickStep(most) * std::ceil(most / TickStep(most) - 1e-9);
}

class Plot {
 public:
  explicit Plot(const Chart& chart) : chart_(chart) {
    double x_most = 0, y_most = 0;
    for (const Series& series : chart.series) {
      for (const auto& [x, y] : series.points) {
        x_most = std::max(x_most, x);
        y_most = std::max(y_most, y);
      }
    }
    x_end_ = AxisEnd(x_most);
    y_end_ = AxisEnd(y_most);
  }

  std::string Draw() const {
    std::string svg = absl::StrFormat("<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"%s\">", kWidth, kHeight,
                                      EscapeHtml(chart_.title));
    for (double y = 0; y <= y_end_ * (1 + 1e-9); y += TickStep(y_end_)) {
      absl::StrAppendFormat(&svg, "<line class=\"grid\" x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\"/>", kLeft,
                            kWidth - kRight, Y(y), Y(y));
      absl::StrAppendFormat(&svg, "<text class=\"axis\" x=\"%g\" y=\"%.1f\" text-anchor=\"end\">%g</text>", kLeft - 6,
                            Y(y) + 4, y);
    }
    for (double x = 0; x <= x_end_ * (1 + 1e-9); x += TickStep(x_end_)) {
      absl::StrAppendFormat(&svg, "<text class=\"axis\" x=\"%.1f\" y=\"%g\" text-anchor=\"middle\">%g</text>", X(x),
                            kHeight - kBottom + 15, x);
    }
    absl::StrAppendFormat(&svg, "<text class=\"axis\" x=\"%g\" y=\"%g\" text-anchor=\"middle\">%s</text>",
                          (kLeft + kWidth - kRight) / 2, kHeight - 5, EscapeHtml(chart_.x_label));
    absl::StrAppend(&svg, Rules());
    for (size_t i = 0; i < chart_.series.size(); ++i) {
      svg += Line(i);
    }
    return svg + "</svg>";
  }

 private:
  double X(double x) const { return kLeft + x / x_end_ * (kWidth - kLeft - kRight); }
  double Y(double y) const { return kHeight - kBottom - y / y_end_ * (kHeight - kTop - kBottom); }

  std::string Rules() const {
    std::string svg;
    if (chart_.x_rule.has_value() && *chart_.x_rule <= x_end_) {
      absl::StrAppendFormat(&svg, "<line class=\"rule\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%g\" y2=\"%g\"/>",
                            X(*chart_.x_rule), X(*chart_.x_rule), kTop, kHeight - kBottom);
    }
    if (chart_.y_rule.has_value() && *chart_.y_rule <= y_end_) {
      absl::StrAppendFormat(&svg, "<line class=\"rule\" x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\"/>", kLeft,
                            kWidth - kRight, Y(*chart_.y_rule), Y(*chart_.y_rule));
    }
    return svg;
  }

  // Series `index`; a single one has its area filled.
  std::string Line(size_t index) const {
    const auto& points = chart_.series[index].points;
    if (points.empty()) {
      return chart_.series.size() > 1
                 ? ""
                 : absl::StrFormat("<text class=\"axis\" x=\"%g\" y=\"%g\" text-anchor=\"middle\">no samples</text>",
                                   kWidth / 2, kHeight / 2);
    }
    std::string path, marks;
    for (const auto& [x, y] : points) {
      absl::StrAppendFormat(&path, "%s%.1f,%.1f", path.empty() ? "M" : "L", X(x), Y(y));
      if (chart_.marks) {
        absl::StrAppendFormat(&marks,
                              "<circle class=\"mark s%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>%s %.4g %s: %.4g "
                              "%s</title></circle>",
                              index, X(x), Y(y), EscapeHtml(chart_.series[index].name), x, EscapeHtml(chart_.x_label),
                              y, EscapeHtml(chart_.y_label));
      }
    }
    std::string svg;
    if (chart_.series.size() == 1) {
      absl::StrAppendFormat(&svg, "<path class=\"area s%d\" d=\"%sL%.1f,%.1fL%.1f,%.1fZ\"/>", index, path,
                            X(points.back().first), Y(0), X(points.front().first), Y(0));
    }
    absl::StrAppendFormat(&svg, "<path class=\"line s%d\" d=\"%s\"/>", index, path);
    return svg + marks;
  }

  const Chart& chart_;
  double x_end_, y_end_;
};

}  // namespace

std::string EscapeHtml(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string SvgChart(const Chart& chart) {
  std::string keys;
  for (size_t i = 0; i < chart.series.size() && chart.series.size() > 1; ++i) {
    absl::StrAppend(&keys, " <span class=\"key s", i, "\">", EscapeHtml(chart.series[i].name), "</span>");
  }
  return absl::StrCat("<figure><figcaption>", EscapeHtml(chart.title), " <small>", EscapeHtml(chart.y_label),
                      "</small>", keys, "</figcaption>", Plot(chart).Draw(), "</figure>\n");
}

}  // namespace quire::client
