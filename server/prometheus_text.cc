#include "server/prometheus_text.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "kernels/check.h"

namespace quire {

Histogram::Histogram(absl::Span<const double> bounds)
    : bounds_(bounds.begin(), bounds.end()), counts_(new std::atomic<uint64_t>[bounds.size() + 1]()) {
  Check(std::adjacent_find(bounds_.begin(), bounds_.end(), std::greater_equal<>()) == bounds_.end(),
        "bounds ascend strictly");
}

void Histogram::Observe(double value) {
  const size_t bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  counts_[bucket].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
}

std::vector<uint64_t> Histogram::CumulativeCounts() const {
  std::vector<uint64_t> counts(bounds_.size() + 1);
  uint64_t total = 0;
  for (size_t i = 0; i < counts.size(); ++i) counts[i] = total += counts_[i].load(std::memory_order_relaxed);
  return counts;
}

void PrometheusText::Begin(absl::string_view name, absl::string_view type, absl::string_view help,
                           bool with_common_labels) {
  name_ = std::string(name);
  with_common_labels_ = with_common_labels;
  absl::StrAppend(&text_, "# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n");
}

void PrometheusText::Sample(double value, const Labels& labels, absl::string_view suffix) {
  Line(suffix, labels, absl::StrCat(value));
}

void PrometheusText::Sample(uint64_t value, const Labels& labels, absl::string_view suffix) {
  Line(suffix, labels, absl::StrCat(value));
}

void PrometheusText::Buckets(const Histogram& histogram) {
  const std::vector<uint64_t> counts = histogram.CumulativeCounts();
  for (size_t i = 0; i < histogram.bounds().size(); ++i) {
    Sample(counts[i], {{"le", absl::StrCat(histogram.bounds()[i])}}, "_bucket");
  }
  Sample(counts.back(), {{"le", "+Inf"}}, "_bucket");
  Sample(histogram.sum(), {}, "_sum");
  Sample(counts.back(), {}, "_count");
}

void PrometheusText::Line(absl::string_view suffix, const Labels& labels, absl::string_view value) {
  absl::StrAppend(&text_, name_, suffix);
  const char* separator = "{";
  const auto append = [&](const Labels& some) {
    for (const auto& [key, label] : some) {
      absl::StrAppend(&text_, separator, key, "=\"",
                      absl::StrReplaceAll(label, {{"\\", "\\\\"}, {"\"", "\\\""}, {"\n", "\\n"}}), "\"");
      separator = ",";
    }
  };
  if (with_common_labels_) append(common_);
  append(labels);
  absl::StrAppend(&text_, *separator == ',' ? "} " : " ", value, "\n");
}

}  // namespace quire
