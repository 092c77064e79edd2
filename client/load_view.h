// LoadView: what a daemon's metrics page says of its load, as `quire status` shows it. Between two looks rates,
// latencies, hits and tenants are those of the time between; a single look shows those since the daemon's start.

#ifndef QUIRE_CLIENT_LOAD_VIEW_H_
#define QUIRE_CLIENT_LOAD_VIEW_H_

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "client/scrape.h"

namespace quire::client {

class LoadView {
 public:
  explicit LoadView(const std::vector<Sample>& samples);

  // Totals since the start. A figure that the page lacks is null.
  nlohmann::ordered_json ToJson() const;
  // `before`: an earlier look, `seconds` ago; null where there is none.
  std::string Screen(const LoadView* before, double seconds) const;

 private:
  // Observations up to each bound, bounds ascending, the last infinite.
  using Buckets = std::map<double, double>;
  struct Tenant {
    double requests = 0, prompt_tokens = 0, completion_tokens = 0;
  };

  std::optional<double> Figure(absl::string_view name) const;
  std::string Count(absl::string_view name) const;
  // Growth since `before`, or all of it.
  double Grown(absl::string_view name, const LoadView* before) const;
  // " (12/s)"; empty without `before`.
  std::string Rate(absl::string_view name, const LoadView* before, double seconds) const;
  // Of a latency, in seconds; nullopt if nothing was observed.
  std::optional<double> Quantile(absl::string_view latency, double q, const LoadView* before) const;
  std::string BlocksLine() const;
  std::string LatencyLine(const LoadView* before) const;
  std::string TenantLines(const LoadView* before, double seconds) const;

  std::map<std::string, std::optional<double>, std::less<>> figures_;  // by the names of --json
  std::map<std::string, Buckets, std::less<>> latencies_;
  std::map<std::string, Tenant> tenants_;
};

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_VIEW_H_
