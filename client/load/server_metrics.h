// What the server said of itself while it was loaded: its Prometheus page, read again and again.

#ifndef QUIRE_CLIENT_LOAD_SERVER_METRICS_H_
#define QUIRE_CLIENT_LOAD_SERVER_METRICS_H_

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/string_view.h"

namespace quire::client {

// One reading; absent is what the server does not have.
struct MetricPoint {
  double time_s = 0;  // since the start
  std::optional<double> running;
  std::optional<double> waiting;
  std::optional<double> kv_usage;  // share of the cache that is in use, 0 to 1
};

struct ServerMetrics {
  std::string url;
  std::vector<MetricPoint> points;
  size_t failed_reads = 0;
  std::string error;                       // of the last failed one
  std::map<std::string, double> counters;  // by our name for each that the server has: growth over the run
};

// One reading of a page, by the names of vLLM (quire has them), SGLang or llama.cpp; `counters` as they stand.
MetricPoint ReadMetrics(absl::string_view page, std::map<std::string, double>& counters);

// Reads from construction to Stop, on a thread of its own.
class MetricsReader {
 public:
  // `url` is of the page; plain "HOST:PORT" means http://HOST:PORT/metrics.
  MetricsReader(const std::string& url, double interval_s);
  ~MetricsReader();
  MetricsReader(const MetricsReader&) = delete;
  MetricsReader& operator=(const MetricsReader&) = delete;

  // The last reading; absent before the first.
  std::optional<MetricPoint> latest();

  // One more reading, then all of them. Once.
  ServerMetrics Stop();

 private:
  using Clock = std::chrono::steady_clock;
  void Read();
  void Run(double interval_s);

  const Clock::time_point start_ = Clock::now();
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stop_ = false;                    // guarded by mutex_
  ServerMetrics metrics_;                // guarded by mutex_
  std::map<std::string, double> first_;  // counters of the first reading; guarded by mutex_
  std::thread thread_;
};

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_SERVER_METRICS_H_
