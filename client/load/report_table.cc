#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/load/report.h"
#include "client/load/sweep.h"

namespace quire::client {
namespace {

constexpr int kTableWidth = 50;
// A scheduler later than this begins to shape the load that it should only send.
constexpr double kLagWarningMs = 5;
constexpr size_t kFailuresShown = 5;

// `title` in the middle of a line of `fill`.
std::string Rule(const std::string& title, char fill) {
  const int blank = std::max(0, kTableWidth - static_cast<int>(title.size()));
  return absl::StrCat(std::string(blank / 2, fill), title, std::string(blank - blank / 2, fill), "\n");
}

void AddLine(std::string& table, const std::string& name, const std::string& value) {
  absl::StrAppendFormat(&table, "%-40s %s\n", absl::StrCat(name, ":"), value);
}

std::string Decimal(std::optional<double> value) { return value.has_value() ? absl::StrFormat("%.2f", *value) : "n/a"; }

std::string PercentileText(const Samples& samples, double percent) {
  if (samples.Supports(percent)) {
    return Decimal(samples.Percentile(percent));
  }
  return absl::StrFormat("n/a (%d samples, needs %.0f)", samples.size(), std::ceil(100 / (100 - percent) - 1e-9));
}

void AddCounts(const LoadOptions& options, const Report& report, std::string& table) {
  const auto per_second = [&](uint64_t count) {
    return report.duration_s > 0 ? Decimal(static_cast<double>(count) / report.duration_s) : "n/a";
  };
  AddLine(table, "Successful requests", absl::StrCat(report.completed));
  AddLine(table, "Failed requests", absl::StrCat(report.failed));
  if (report.cancelled > 0) {
    AddLine(table, "Cancelled on purpose", absl::StrCat(report.cancelled));
  }
  if (options.max_concurrency.has_value()) {
    AddLine(table, "Maximum request concurrency", absl::StrCat(*options.max_concurrency));
  }
  if (std::isfinite(options.arrivals.request_rate)) {
    AddLine(table, "Request rate configured (RPS)", Decimal(options.arrivals.request_rate));
  }
  AddLine(table, "Benchmark duration (s)", Decimal(report.duration_s));
  AddLine(table, "Total input tokens", absl::StrCat(report.total_input_tokens));
  AddLine(table, "Total generated tokens", absl::StrCat(report.total_output_tokens));
  AddLine(table, "Request throughput (req/s)", per_second(report.completed));
  if (report.request_goodput.has_value()) {
    AddLine(table, "Request goodput (req/s)", Decimal(report.request_goodput));
  }
  AddLine(table, "Output token throughput (tok/s)", per_second(report.total_output_tokens));
  AddLine(table, "Peak output token throughput (tok/s)", Decimal(report.max_output_tokens_per_s));
  AddLine(table, "Peak concurrent requests", absl::StrCat(report.max_concurrent_requests));
  AddLine(table, "Total token throughput (tok/s)", per_second(report.total_input_tokens + report.total_output_tokens));
}

void AddLatencies(const LoadOptions& options, const Report& report, std::string& table) {
  for (const Latency& latency : report.latencies) {
    const auto& shown = options.percentile_metrics;
    if (std::find(shown.begin(), shown.end(), latency.name) == shown.end()) {
      continue;
    }
    const std::string unit = absl::StrCat(" ", absl::AsciiStrToUpper(latency.name), " (ms)");
    table += Rule(latency.title, '-');
    AddLine(table, absl::StrCat("Mean", unit), Decimal(latency.samples_ms.Mean()));
    AddLine(table, absl::StrCat("Median", unit), Decimal(latency.samples_ms.Median()));
    for (double percent : options.metric_percentiles) {
      AddLine(table, absl::StrCat("P", percent, unit), PercentileText(latency.samples_ms, percent));
    }
  }
}

void AddServer(const ServerMetrics& server, std::string& table) {
  table += Rule("The Server's Metrics", '-');
  const auto most = [&](std::optional<double> MetricPoint::*member) {
    std::optional<double> value;
    for (const MetricPoint& point : server.points) {
      value = std::max(value, point.*member);  // absent is less than any
    }
    return value;
  };
  const auto text = [](std::optional<double> value) { return value.has_value() ? absl::StrCat(*value) : "n/a"; };
  const std::optional<double> kv_usage = most(&MetricPoint::kv_usage);
  AddLine(table, "Readings", absl::StrCat(server.points.size()));
  if (server.failed_reads > 0) {
    AddLine(table, "Failed readings", absl::StrCat(server.failed_reads, ", the last: ", server.error));
  }
  AddLine(table, "Most requests running", text(most(&MetricPoint::running)));
  AddLine(table, "Most requests waiting", text(most(&MetricPoint::waiting)));
  AddLine(table, "Highest KV cache usage (%)", kv_usage.has_value() ? Decimal(100 * *kv_usage) : "n/a");
  if (const auto made = server.counters.find("generation_tokens"); made != server.counters.end()) {
    AddLine(table, "Tokens that it says it generated", absl::StrCat(made->second));
  }
}

void AddClient(const RunResult& run, const Report& report, std::string& table) {
  table += Rule("This Client", '-');
  AddLine(table, "CPU (cores)", Decimal(run.cpu_cores));
  AddLine(table, "Mean scheduling lag (ms)", Decimal(report.scheduling_lag_ms.Mean()));
  AddLine(table, "P99 scheduling lag (ms)", PercentileText(report.scheduling_lag_ms, 99));
  AddLine(table, "Mean client queue time (ms)", Decimal(report.client_queue_ms.Mean()));
  AddLine(table, "Median TTFT from actual send (ms)", Decimal(report.ttft_from_send_ms.Median()));
}

void AddFailures(const RunResult& run, std::string& table) {
  const std::vector<std::pair<size_t, std::string>> ranked = FailureCounts(run);
  if (ranked.empty()) {
    return;
  }
  table += "Failures, not in any latency:\n";
  for (size_t i = 0; i < std::min(ranked.size(), kFailuresShown); ++i) {
    absl::StrAppend(&table, "  ", ranked[i].first, " x ", ranked[i].second, "\n");
  }
  if (ranked.size() > kFailuresShown) {
    absl::StrAppend(&table, "  and ", ranked.size() - kFailuresShown, " other kinds\n");
  }
}

// Where tokens were not seen one by one. Ids are.
void AddCountNotes(const LoadOptions& options, const Report& report, std::string& table) {
  if (!IsHttp(options)) {
    return;
  }
  if (report.requests_without_usage > 0) {
    absl::StrAppend(&table, "Note: for ", report.requests_without_usage,
                    " requests the server reported no usage: their output tokens are messages, their input tokens the "
                    "ids sent.\n");
  }
  if (report.total_messages != report.total_output_tokens) {
    absl::StrAppend(&table, "Note: ", report.total_output_tokens, " output tokens came in ", report.total_messages,
                    " messages: ITL goes by messages, TPOT by tokens.\n");
  }
}

}  // namespace

std::string ReportTable(const LoadOptions& options, const RunResult& run, const Report& report) {
  std::string table;
  if (!report.sweep.empty()) {
    absl::StrAppend(&table, SweepTable(*options.sweep, report.sweep),
                    "Below: ", BestStage(report) != nullptr ? "the highest rate that holds.\n" : "the last stage.\n");
  }
  table += Rule(" Serving Benchmark Result ", '=');
  AddCounts(options, report, table);
  AddLatencies(options, report, table);
  if (run.server.has_value()) {
    AddServer(*run.server, table);
  }
  AddClient(run, report, table);
  table += Rule("", '=');
  absl::StrAppend(
      &table,
      "TTFT and E2EL count from the intended send time (open loop: the arrival; closed loop: the moment a place "
      "became\n"
      "free), TTFT to the first message with a token. TPOT = (E2EL - TTFT) / (output tokens - 1). ITL: gaps between\n"
      "messages, a message of k tokens as k parts. Percentiles are nearest rank over raw samples of completed "
      "requests.\n");
  const Samples& lag_ms = report.scheduling_lag_ms;
  if (lag_ms.Percentile(99).value_or(0) > kLagWarningMs) {
    absl::StrAppendFormat(
        &table,
        "Warning: this client sent late (%s of the lag is %.1f ms, fair is %.0f): the machine is too busy for "
        "this load.\n",
        lag_ms.Supports(99) ? "P99" : "the largest", *lag_ms.Percentile(99), kLagWarningMs);
  }
  AddCountNotes(options, report, table);
  if (run.replay.has_value()) {
    absl::StrAppend(&table, "Replay check: ", run.replay->checked, " requests repeated alone, ",
                    run.replay->mismatched.size(), " with another answer.\n");
  }
  if (run.gave_up && report.sweep.empty()) {
    absl::StrAppend(&table, "Given up after ", report.failed, " failures: ", run.requests.size(), " of ",
                    options.num_prompts, " requests were sent.\n");
  }
  if (run.interrupted) {
    absl::StrAppend(&table, "Interrupted: ", run.requests.size(), " of ", options.num_prompts,
                    " requests were sent.\n");
  }
  AddFailures(run, table);
  return table;
}

}  // namespace quire::client
