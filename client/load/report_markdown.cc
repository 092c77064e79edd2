#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "client/load/report.h"

namespace quire::client {
namespace {

std::string Cell(std::optional<double> value) { return value.has_value() ? absl::StrFormat("%.2f", *value) : "n/a"; }

// Text of a server, in one cell.
std::string Escape(const std::string& text) { return absl::StrReplaceAll(text, {{"|", "\\|"}, {"\n", " "}}); }

double PerSecond(uint64_t count, const Report& report) {
  return report.duration_s > 0 ? static_cast<double>(count) / report.duration_s : 0;
}

}  // namespace

std::string ReportMarkdown(const LoadOptions& options, const RunResult& run, const Report& report) {
  std::string text = absl::StrCat("### ", Escape(report.model), ", ", report.date, "\n\n");
  absl::StrAppendFormat(
      &text, "%d completed, %d failed in %.2f s: %.2f requests/s, %.1f output tokens/s, %.1f tokens/s in all",
      report.completed, report.failed, report.duration_s, PerSecond(report.completed, report),
      PerSecond(report.total_output_tokens, report),
      PerSecond(report.total_input_tokens + report.total_output_tokens, report));
  if (report.request_goodput.has_value()) {
    absl::StrAppendFormat(&text, ", goodput %.2f requests/s", *report.request_goodput);
  }
  absl::StrAppend(&text, ".\n\n| ms | n | mean | median |");
  for (double percent : options.metric_percentiles) {
    absl::StrAppend(&text, " p", percent, " |");
  }
  absl::StrAppend(&text, "\n|---|--:|--:|--:|");
  for (size_t i = 0; i < options.metric_percentiles.size(); ++i) {
    absl::StrAppend(&text, "--:|");
  }
  for (const Latency& latency : report.latencies) {
    const Samples& samples = latency.samples_ms;
    absl::StrAppend(&text, "\n| ", absl::AsciiStrToUpper(latency.name), " | ", samples.size(), " | ",
                    Cell(samples.Mean()), " | ", Cell(samples.Median()), " |");
    for (double percent : options.metric_percentiles) {
      absl::StrAppend(&text, " ", samples.Supports(percent) ? Cell(samples.Percentile(percent)) : "n/a", " |");
    }
  }
  absl::StrAppend(&text, "\n");
  if (!report.sweep.empty()) {
    const SweepStage* best = BestStage(report);
    absl::StrAppend(
        &text, "\nSweep: ", best == nullptr ? "no rate holds" : absl::StrFormat("%.2f requests/s hold", best->rate),
        " (", 100 * options.sweep->attainment, " % of the requests meet every objective).\n\n",
        "| requests/s | met | goodput | tokens/s | TTFT p50 | TTFT p99 | TPOT p50 | TPOT p99 | |\n"
        "|--:|--:|--:|--:|--:|--:|--:|--:|---|\n");
    for (const SweepStage& stage : report.sweep) {
      absl::StrAppendFormat(&text, "| %.2f | %.1f %% | %.2f | %.1f | %s | %s | %s | %s | %s |\n", stage.rate,
                            100 * stage.attainment, stage.request_goodput, stage.output_throughput,
                            Cell(stage.median_p99_ms[0].first), Cell(stage.median_p99_ms[0].second),
                            Cell(stage.median_p99_ms[1].first), Cell(stage.median_p99_ms[1].second),
                            stage.holds ? "holds" : "fails");
    }
  }
  const auto failures = FailureCounts(run);
  if (!failures.empty()) {
    absl::StrAppend(&text, "\n| failures | error |\n|--:|---|\n");
    for (const auto& [count, error] : failures) {
      absl::StrAppend(&text, "| ", count, " | ", Escape(error), " |\n");
    }
  }
  return text;
}

}  // namespace quire::client
