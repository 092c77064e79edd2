// What a load test tells: the JSON keys, the table and the definitions of `vllm bench serve`.

#ifndef QUIRE_CLIENT_LOAD_REPORT_H_
#define QUIRE_CLIENT_LOAD_REPORT_H_

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "client/load/options.h"
#include "client/load/result.h"
#include "client/load/statistics.h"

namespace quire::client {

// One latency, in milliseconds, over the requests that completed.
struct Latency {
  std::string name;   // "ttft"
  std::string title;  // "Time to First Token"
  Samples samples_ms;
};

// One rate of a sweep.
struct SweepStage {
  double rate = 0;        // requests a second that were sent
  double attainment = 0;  // share of the planned requests that met every objective
  bool holds = false;
  bool stopped_early = false;  // it had failed before it was over
  size_t completed = 0;
  size_t failed = 0;
  double duration_s = 0;
  double request_throughput = 0;  // completed a second
  double request_goodput = 0;
  double output_throughput = 0;  // tokens a second
  // By name as in Report::latencies: median, and p99 where the samples support it.
  std::vector<std::pair<std::optional<double>, std::optional<double>>> median_p99_ms;
};

struct Report {
  std::string date;  // 20240131-235959, local time
  std::string model;
  size_t completed = 0;
  size_t failed = 0;
  size_t cancelled = 0;  // by --request-cancellation-rate
  double duration_s = 0;
  uint64_t total_input_tokens = 0;  // of completed requests, as all totals
  uint64_t total_output_tokens = 0;
  uint64_t total_cached_tokens = 0;
  uint64_t total_messages = 0;            // with output; fewer than the tokens, or as many
  size_t requests_without_usage = 0;      // completed ones of which the server counted nothing
  std::optional<double> request_goodput;  // requests a second that met all objectives; absent without objectives
  double max_output_tokens_per_s = 0;     // the best of the seconds since the start
  size_t max_concurrent_requests = 0;     // sent and not ended at one moment
  std::vector<Latency> latencies;         // ttft, tpot, itl, e2el
  size_t num_good = 0;                    // completed requests that met all objectives
  std::vector<SweepStage> sweep;          // by rate; empty: no sweep. All else is of the best stage
  // Of this client: lateness of sending, and what TTFT contains of waiting here for --max-concurrency.
  Samples scheduling_lag_ms;
  Samples client_queue_ms;
  Samples ttft_from_send_ms;
};

Report MakeReport(const LoadOptions& options, const RunResult& run, const std::string& model, const std::string& date);

// Whether a completed request met every objective.
bool MeetsObjectives(const RequestResult& request, const std::vector<std::pair<std::string, double>>& objectives);

// The stage of the highest rate that holds; null: none.
const SweepStage* BestStage(const Report& report);

// Every figure; with details one entry of each list for each request, in the order of sending (a failed one has zeros
// and its error).
nlohmann::ordered_json ReportJson(const LoadOptions& options, const RunResult& run, const Report& report,
                                  bool detailed);

// One JSON object a line for each request.
std::string RequestLines(const RunResult& run);

// The table, its notes and the failures.
std::string ReportTable(const LoadOptions& options, const RunResult& run, const Report& report);

// Errors of failed requests and how often each came, the most frequent first.
std::vector<std::pair<size_t, std::string>> FailureCounts(const RunResult& run);

// A summary for a pull request or a log of measurements.
std::string ReportMarkdown(const LoadOptions& options, const RunResult& run, const Report& report);

// One page with charts that loads nothing else: well-formed XML but for its DOCTYPE.
std::string ReportHtml(const LoadOptions& options, const RunResult& run, const Report& report);

// {label}-{rate}qps-concurrency{N}-{model}-{date}.json, without the concurrency if there is no limit.
std::string ResultFilename(const LoadOptions& options, const Report& report);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_REPORT_H_
