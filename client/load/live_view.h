// What a person sees while a load test runs: on a terminal a few lines that replace themselves; elsewhere a line now
// and then.

#ifndef QUIRE_CLIENT_LOAD_LIVE_VIEW_H_
#define QUIRE_CLIENT_LOAD_LIVE_VIEW_H_

#include <cstddef>
#include <deque>
#include <optional>
#include <string>

#include "client/io.h"
#include "client/load/runner.h"
#include "client/load/server_metrics.h"

namespace quire::client {

class LiveView {
 public:
  // `title` names the run; `num_requests` are planned.
  LiveView(std::string title, size_t num_requests, Io& io);

  double period_s() const;

  // `server` is absent if its metrics are not read, or were not yet.
  void Show(const Tally& now, const std::optional<MetricPoint>& server);

  // Takes the view off the terminal.
  void Clear();

 private:
  struct Ended {
    double at_s;
    double ttft_ms;
    std::optional<double> tpot_ms;
  };

  std::string Lines(const Tally& now, const std::optional<MetricPoint>& server) const;

  const std::string title_;
  const size_t num_requests_;
  Io& io_;
  double last_s_ = 0;
  uint64_t last_tokens_ = 0;
  std::deque<double> tokens_per_s_;  // of the last intervals
  std::deque<Ended> ended_;          // of the last seconds
  int lines_shown_ = 0;
};

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_LIVE_VIEW_H_
