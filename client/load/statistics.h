// Raw samples of one figure and what may be said of them.

#ifndef QUIRE_CLIENT_LOAD_STATISTICS_H_
#define QUIRE_CLIENT_LOAD_STATISTICS_H_

#include <cstddef>
#include <optional>
#include <vector>

namespace quire::client {

class Samples {
 public:
  Samples() = default;
  explicit Samples(std::vector<double> values);

  size_t size() const { return sorted_.size(); }

  // All absent if there is no sample.
  std::optional<double> Mean() const;
  std::optional<double> StandardDeviation() const;  // of these samples, not an estimate for a population: divides by n
  std::optional<double> Median() const { return Percentile(50); }

  // Nearest rank: the smallest sample that at least `percent` of all do not exceed; no interpolation, so it did happen.
  // In (0, 100].
  std::optional<double> Percentile(double percent) const;

  // Whether there are samples enough that one is expected above the percentile: n * (1 - percent / 100) >= 1. p99 needs
  // 100, p99.9 1000.
  bool Supports(double percent) const;

 private:
  std::vector<double> sorted_;
};

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_STATISTICS_H_
