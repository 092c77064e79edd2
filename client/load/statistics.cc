#include "client/load/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace quire::client {
namespace {

// Percents are decimal fractions that binary rounds; a rank must not move by that.
constexpr double kRounding = 1e-9;

}  // namespace

Samples::Samples(std::vector<double> values) : sorted_(std::move(values)) { std::sort(sorted_.begin(), sorted_.end()); }

std::optional<double> Samples::Mean() const {
  if (sorted_.empty()) {
    return std::nullopt;
  }
  return std::accumulate(sorted_.begin(), sorted_.end(), 0.0) / static_cast<double>(size());
}

std::optional<double> Samples::StandardDeviation() const {
  const std::optional<double> mean = Mean();
  if (!mean.has_value()) {
    return std::nullopt;
  }
  double squares = 0;
  for (double value : sorted_) {
    squares += (value - *mean) * (value - *mean);
  }
  return std::sqrt(squares / static_cast<double>(size()));
}

std::optional<double> Samples::Percentile(double percent) const {
  if (sorted_.empty()) {
    return std::nullopt;
  }
  const double rank = std::ceil(percent / 100 * static_cast<double>(size()) - kRounding);  // from 1
  return sorted_[static_cast<size_t>(std::max(1.0, rank)) - 1];
}

bool Samples::Supports(double percent) const {
  return static_cast<double>(size()) * (1 - percent / 100) >= 1 - kRounding;
}

}  // namespace quire::client
