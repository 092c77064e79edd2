// Reads a daemon's admin listener: HTTP GET and Prometheus text.

#ifndef QUIRE_CLIENT_SCRAPE_H_
#define QUIRE_CLIENT_SCRAPE_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quire::client {

// The body of http://ADDRESS/PATH, within two seconds and 16 MiB; anything but a 200 is an error.
absl::StatusOr<std::string> HttpGet(const std::string& address, const std::string& path);

// The same of a whole URL, http or https.
absl::StatusOr<std::string> HttpGetUrl(const std::string& url);

// One line of Prometheus text.
struct Sample {
  std::string name;
  std::map<std::string, std::string> labels;
  double value = 0;
};

// The samples of a page; comments and lines of another form are skipped.
std::vector<Sample> ParsePrometheus(absl::string_view text);

// The sum of `name`'s samples that carry each of `labels`; absent if there is none.
std::optional<double> SumOf(const std::vector<Sample>& samples, absl::string_view name,
                            const std::map<std::string, std::string>& labels = {});

}  // namespace quire::client

#endif  // QUIRE_CLIENT_SCRAPE_H_
