#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/load/report.h"
#include "client/load/svg_chart.h"

namespace quire::client {
namespace {

// Parts of the run that a time series tells apart.
constexpr size_t kBins = 120;

constexpr char kStyle[] = R"(
:root { color-scheme: light dark; --line: #2563eb; --area: #2563eb22; --rule: #8884; --soft: #777; }
@media (prefers-color-scheme: dark) { :root { --line: #7aa7ff; --area: #7aa7ff22; --soft: #999; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 61rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p.when, small { color: var(--soft); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
td.n, th.n { text-align: right; }
.tiles, .charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
.charts { grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); }
.tiles div { border: 1px solid var(--rule); border-radius: .4rem; padding: .6rem .8rem; }
.tiles b { display: block; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
figure { margin: 0; } svg { width: 100%; height: auto; }
svg .grid { stroke: var(--rule); } svg .axis { fill: var(--soft); font-size: 11px; }
svg .line { fill: none; stroke: var(--line); stroke-width: 1.6; } svg .area { fill: var(--area); }
)";

std::string Number(std::optional<double> value, const char* unit = "") {
  return value.has_value() ? absl::StrFormat("%.2f%s", *value, unit) : "n/a";
}

double PerSecond(uint64_t count, const Report& report) {
  return report.duration_s > 0 ? static_cast<double>(count) / report.duration_s : 0;
}

std::string Tile(absl::string_view name, absl::string_view value) {
  return absl::StrCat("<div><b>", EscapeHtml(value), "</b>", EscapeHtml(name), "</div>\n");
}

std::string Tiles(const Report& report) {
  const Samples& ttft_ms = report.latencies[0].samples_ms;
  std::string html = "<div class=\"tiles\">\n";
  absl::StrAppend(&html, Tile("completed", absl::StrCat(report.completed)), Tile("failed", absl::StrCat(report.failed)),
                  Tile("cancelled", absl::StrCat(report.cancelled)),
                  Tile("requests/s", Number(PerSecond(report.completed, report))),
                  Tile("output tokens/s", Number(PerSecond(report.total_output_tokens, report))),
                  Tile("median TTFT", Number(ttft_ms.Median(), " ms")),
                  Tile("p99 TTFT", ttft_ms.Supports(99) ? Number(ttft_ms.Percentile(99), " ms") : "n/a"));
  if (report.request_goodput.has_value()) {
    html += Tile("goodput, requests/s", Number(report.request_goodput));
  }
  return html + "</div>\n";
}

std::string Row(absl::string_view name, absl::string_view value) {
  return absl::StrCat("<tr><th>", EscapeHtml(name), "</th><td>", EscapeHtml(value), "</td></tr>\n");
}

std::string Arrivals(const LoadOptions& options) {
  const ArrivalOptions& arrivals = options.arrivals;
  if (arrivals.ramp.has_value()) {
    return absl::StrFormat("%s ramp from %g to %g requests/s", arrivals.ramp->exponential ? "exponential" : "linear",
                           arrivals.ramp->start_rps, arrivals.ramp->end_rps);
  }
  if (!arrivals.open_loop()) {
    return options.dataset.name == "trace" ? "those of the trace" : "as places become free";
  }
  return absl::StrFormat("%g requests/s, burstiness %g", arrivals.request_rate, arrivals.burstiness);
}

std::string RunCard(const LoadOptions& options, const RunResult& run, const Report& report) {
  std::string html = "<h2>Run</h2>\n<table>\n";
  absl::StrAppend(
      &html, Row("Model", report.model), Row("Backend", options.backend), Row("Target", options.connection.target),
      Row("Dataset",
          absl::StrCat(options.dataset.name, options.dataset.path.empty() ? "" : ", ", options.dataset.path)),
      Row("Requests", absl::StrCat(run.requests.size(), " of ", options.num_prompts, " sent, ", options.num_warmups,
                                   " warm-ups before")),
      Row("Arrivals", Arrivals(options)),
      Row("Concurrency",
          options.max_concurrency.has_value() ? absl::StrCat("at most ", *options.max_concurrency) : "any"),
      Row("Connections", absl::StrCat(options.connections)), Row("Seed", absl::StrCat(options.seed)),
      Row("Duration", absl::StrFormat("%.2f s%s", report.duration_s, run.interrupted ? ", interrupted" : "")),
      Row("Tokens", absl::StrFormat("%d in (%d cached), %d out", report.total_input_tokens, report.total_cached_tokens,
                                    report.total_output_tokens)),
      Row("This client", absl::StrCat(Number(run.cpu_cores), " cores; scheduling lag mean ",
                                      Number(report.scheduling_lag_ms.Mean(), " ms"), ", largest ",
                                      Number(report.scheduling_lag_ms.Percentile(100), " ms"))));
  for (const auto& [key, value] : options.metadata) {
    html += Row(key, value);
  }
  return html + "</table>\n";
}

std::string LatencyTable(const LoadOptions& options, const Report& report) {
  std::string html =
      "<h2>Latencies, ms</h2>\n<table>\n<tr><th></th><th class=\"n\">n</th><th class=\"n\">mean</th>"
      "<th class=\"n\">median</th>";
  for (double percent : options.metric_percentiles) {
    absl::StrAppend(&html, "<th class=\"n\">p", percent, "</th>");
  }
  html += "</tr>\n";
  for (const Latency& latency : report.latencies) {
    const Samples& samples = latency.samples_ms;
    absl::StrAppend(&html, "<tr><th>", EscapeHtml(latency.title), "</th><td class=\"n\">", samples.size(),
                    "</td><td class=\"n\">", Number(samples.Mean()), "</td><td class=\"n\">", Number(samples.Median()),
                    "</td>");
    for (double percent : options.metric_percentiles) {
      absl::StrAppend(&html, "<td class=\"n\">",
                      samples.Supports(percent) ? Number(samples.Percentile(percent)) : "n/a", "</td>");
    }
    html += "</tr>\n";
  }
  return html + "</table>\n";
}

Chart CumulativeChart(const Latency& latency) {
  Chart chart{absl::AsciiStrToUpper(latency.name), "ms", "% of samples at most this", {}};
  const Samples& samples = latency.samples_ms;
  if (samples.size() > 0) {
    chart.points.emplace_back(*samples.Percentile(1e-6), 0);
    for (double percent = 0.5; percent <= 100; percent += 0.5) {
      chart.points.emplace_back(*samples.Percentile(percent), percent);
    }
  }
  return chart;
}

// Requests sent and not ended, at the end of each part of the run.
Chart InFlightChart(const RunResult& run) {
  Chart chart{"Requests under way", "s", "", {}};
  const double width_s = run.duration_s / kBins;
  for (size_t bin = 0; bin <= kBins && width_s > 0; ++bin) {
    const double now = static_cast<double>(bin) * width_s;
    const auto live = std::count_if(run.requests.begin(), run.requests.end(), [now](const RequestResult& request) {
      return request.sent_s <= now && now < request.end_s;
    });
    chart.points.emplace_back(now, static_cast<double>(live));
  }
  return chart;
}

Chart TokenRateChart(const RunResult& run) {
  Chart chart{"Output tokens", "s", "tokens/s", {}};
  const double width_s = run.duration_s / kBins;
  if (!(width_s > 0)) {
    return chart;
  }
  std::vector<double> tokens(kBins);
  const auto count = [&](double at_s, double number) {
    tokens[std::min(kBins - 1, static_cast<size_t>(std::max(0.0, at_s) / width_s))] += number;
  };
  for (const RequestResult& request : run.requests) {
    double at_s = request.first_token_s;
    count(at_s, request.first_tokens);
    for (float gap_s : request.itls_s) {
      at_s += gap_s;
      count(at_s, 1);
    }
  }
  for (size_t bin = 0; bin < kBins; ++bin) {
    chart.points.emplace_back((static_cast<double>(bin) + 0.5) * width_s, tokens[bin] / width_s);
  }
  return chart;
}

std::string Failures(const RunResult& run) {
  const auto failures = FailureCounts(run);
  if (failures.empty()) {
    return "<h2>Failures</h2>\n<p>None.</p>\n";
  }
  std::string html = "<h2>Failures, not in any latency</h2>\n<table>\n<tr><th class=\"n\">n</th><th>error</th></tr>\n";
  for (const auto& [count, error] : failures) {
    absl::StrAppend(&html, "<tr><td class=\"n\">", count, "</td><td>", EscapeHtml(error), "</td></tr>\n");
  }
  return html + "</table>\n";
}

constexpr char kDefinitions[] = R"(<h2>Definitions</h2>
<table>
<tr><th>TTFT</th><td>first message with a token − intended send time: open loop, the arrival; closed loop, the moment a place became free</td></tr>
<tr><th>E2EL</th><td>end of the stream − intended send time</td></tr>
<tr><th>TPOT</th><td>(E2EL − TTFT) / (output tokens − 1)</td></tr>
<tr><th>ITL</th><td>gaps between messages with tokens; a message of k tokens is k equal parts of its gap</td></tr>
<tr><th>Goodput</th><td>completed requests a second that met every objective</td></tr>
<tr><th>Percentiles</th><td>nearest rank over raw samples of completed requests; n/a where n does not reach</td></tr>
<tr><th>Scheduling lag</th><td>actual − due send time; of this client, not of the server</td></tr>
</table>
)";

}  // namespace

std::string ReportHtml(const LoadOptions& options, const RunResult& run, const Report& report) {
  std::string html = absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<title>quire load: ",
      EscapeHtml(report.model), "</title>\n<style>", kStyle, "</style>\n</head>\n<body>\n<h1>",
      EscapeHtml(report.model), "</h1>\n<p class=\"when\">quire load, ", EscapeHtml(report.date), "</p>\n");
  absl::StrAppend(&html, Tiles(report), LatencyTable(options, report),
                  "<h2>Latencies, cumulative</h2>\n<div class=\"charts\">\n");
  for (const Latency& latency : report.latencies) {
    html += SvgChart(CumulativeChart(latency));
  }
  absl::StrAppend(&html, "</div>\n<h2>Over time</h2>\n<div class=\"charts\">\n", SvgChart(InFlightChart(run)),
                  SvgChart(TokenRateChart(run)), "</div>\n", Failures(run), RunCard(options, run, report), kDefinitions,
                  "</body>\n</html>\n");
  return html;
}

}  // namespace quire::client
