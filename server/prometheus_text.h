// The Prometheus text format (exposition format 0.0.4), and a histogram to observe into.

#ifndef QUIRE_SERVER_PROMETHEUS_TEXT_H_
#define QUIRE_SERVER_PROMETHEUS_TEXT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace quire {

// Counts of observations by bucket. Observe and reads from any thread, without waiting; a read during an Observe may
// miss it.
class Histogram {
 public:
  // REQUIRES: `bounds` ascends strictly; the last bucket, +Inf, is not in it.
  explicit Histogram(absl::Span<const double> bounds);

  void Observe(double value);

  absl::Span<const double> bounds() const { return bounds_; }
  // Observations <= bounds()[i], or all for i == bounds().size().
  std::vector<uint64_t> CumulativeCounts() const;
  double sum() const { return sum_.load(std::memory_order_relaxed); }

 private:
  std::vector<double> bounds_;
  std::unique_ptr<std::atomic<uint64_t>[]> counts_;  // [bounds_.size() + 1] of each bucket alone
  std::atomic<double> sum_{0};
};

// Writes families one after the other: Begin, then its samples.
class PrometheusText {
 public:
  using Labels = std::vector<std::pair<std::string, std::string>>;

  // Every sample carries `common` first. Values are escaped.
  explicit PrometheusText(Labels common) : common_(std::move(common)) {}

  // A family without the common labels has a name of our own: they tell vLLM's engines apart.
  void Begin(absl::string_view name, absl::string_view type, absl::string_view help, bool with_common_labels);
  void Sample(double value, const Labels& labels = {}, absl::string_view suffix = "");
  void Sample(uint64_t value, const Labels& labels = {}, absl::string_view suffix = "");
  void Buckets(const Histogram& histogram);

  const std::string& text() const { return text_; }

 private:
  void Line(absl::string_view suffix, const Labels& labels, absl::string_view value);

  const Labels common_;
  std::string name_;  // of the present family
  bool with_common_labels_ = true;
  std::string text_;
};

}  // namespace quire

#endif  // QUIRE_SERVER_PROMETHEUS_TEXT_H_
