#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/load/report.h"
#include "client/load/svg_chart.h"

namespace quire::client {
namespace {

// Parts of the run that a time series tells apart.
constexpr size_t kBins = 120;

constexpr char kStyle[] = R"(
:root { color-scheme: light dark; --page: #fff; --card: #f8fafc; --text: #0f172a; --soft: #64748b; --rule: #cbd5e199;
  --c0: #2563eb; --c1: #d97706; --c2: #059669; --bad: #dc2626; }
@media (prefers-color-scheme: dark) { :root { --page: #0b1120; --card: #131c31; --text: #e2e8f0; --soft: #94a3b8;
  --rule: #47556999; --c0: #7aa7ff; --c1: #fbbf24; --c2: #34d399; --bad: #f87171; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem;
  background: var(--page); color: var(--text); }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p.when, small { color: var(--soft); } p.when { margin-top: .2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem 1.1rem .25rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { font-weight: 600; } td.n, th.n { text-align: right; } .holds { color: var(--c2); } .fails { color: var(--bad); }
.wide { overflow-x: auto; margin-top: 1rem; }
.tiles, .charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(9.6rem, 1fr)); }
.charts { grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); }
.tiles div, figure { border: 1px solid var(--rule); border-radius: .5rem; padding: .7rem .9rem; background: var(--card); }
.tiles b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--soft); font-size: .85rem; }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: .3rem; } figcaption small { font-weight: 400; }
svg { display: block; width: 100%; height: auto; }
svg .grid { stroke: var(--rule); } svg .axis { fill: var(--soft); font-size: 11px; }
svg .rule { stroke: var(--bad); stroke-dasharray: 4 3; } svg .line { fill: none; stroke-width: 1.7; }
svg .area { fill-opacity: .13; } svg .mark { stroke: var(--card); }
.key { font-weight: 400; font-size: .85rem; margin-left: .6rem; } .key::before { content: "\25CF"; margin-right: .25rem; }
.line.s0 { stroke: var(--c0); } .area.s0, .mark.s0 { fill: var(--c0); } .key.s0::before { color: var(--c0); }
.line.s1 { stroke: var(--c1); } .area.s1, .mark.s1 { fill: var(--c1); } .key.s1::before { color: var(--c1); }
)";

std::string Number(std::optional<double> value, const char* unit = "") {
  return value.has_value() ? absl::StrFormat("%.2f%s", *value, unit) : "n/a";
}

double PerSecond(uint64_t count, const Report& report) {
  return report.duration_s > 0 ? static_cast<double>(count) / report.duration_s : 0;
}

std::string Tile(absl::string_view name, absl::string_view value) {
  return absl::StrCat("<div><b>", EscapeHtml(value), "</b><span>", EscapeHtml(name), "</span></div>\n");
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
      &html, Row("Model", report.model), Row("Backend", options.backend),
      Row("Server", IsHttp(options) ? options.base_url : options.connection.target),
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
      "<h2>Latencies, ms</h2>\n<div class=\"wide\"><table>\n<tr><th></th><th class=\"n\">n</th><th "
      "class=\"n\">mean</th>"
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
  return html + "</table></div>\n";
}

Chart CumulativeChart(const LoadOptions& options, const Latency& latency) {
  Chart chart{absl::AsciiStrToUpper(latency.name), "ms", "% of samples at most this", {{}}};
  for (const auto& [metric, bound_ms] : options.goodput) {
    chart.x_rule = metric == latency.name ? bound_ms : chart.x_rule;
  }
  const Samples& samples = latency.samples_ms;
  if (samples.size() > 0) {
    chart.series[0].points.emplace_back(*samples.Percentile(1e-6), 0);
    for (double percent = 0.5; percent <= 100; percent += 0.5) {
      chart.series[0].points.emplace_back(*samples.Percentile(percent), percent);
    }
  }
  return chart;
}

// Requests sent and not ended, at the end of each part of the run.
Chart InFlightChart(const RunResult& run) {
  Chart chart{"Requests under way", "s", "", {{}}};
  const double width_s = run.duration_s / kBins;
  for (size_t bin = 0; bin <= kBins && width_s > 0; ++bin) {
    const double now = static_cast<double>(bin) * width_s;
    const auto live = std::count_if(run.requests.begin(), run.requests.end(), [now](const RequestResult& request) {
      return request.sent_s <= now && now < request.end_s;
    });
    chart.series[0].points.emplace_back(now, static_cast<double>(live));
  }
  return chart;
}

Chart TokenRateChart(const RunResult& run) {
  Chart chart{"Output tokens", "s", "tokens/s", {{}}};
  const double width_s = run.duration_s / kBins;
  if (!(width_s > 0)) {
    return chart;
  }
  std::vector<double> tokens(kBins);
  const auto count = [&](double at_s, double number) {
    tokens[std::min(kBins - 1, static_cast<size_t>(std::max(0.0, at_s) / width_s))] += number;
  };
  for (const RequestResult& request : run.requests) {
    const double weight = TokensPerCounted(request);
    double at_s = request.first_token_s;
    count(at_s, weight * request.first_tokens);
    for (float gap_s : request.itls_s) {
      at_s += gap_s;
      count(at_s, weight);
    }
  }
  for (size_t bin = 0; bin < kBins; ++bin) {
    chart.series[0].points.emplace_back((static_cast<double>(bin) + 0.5) * width_s, tokens[bin] / width_s);
  }
  return chart;
}

// What the server said of itself over the run.
std::string ServerCharts(const ServerMetrics& server) {
  Chart requests{"The server's requests", "s", "", {{"running", {}}, {"waiting", {}}}};
  Chart cache{"The server's KV cache", "s", "% in use", {{}}};
  for (const MetricPoint& point : server.points) {
    if (point.running.has_value()) {
      requests.series[0].points.emplace_back(point.time_s, *point.running);
    }
    if (point.waiting.has_value()) {
      requests.series[1].points.emplace_back(point.time_s, *point.waiting);
    }
    if (point.kv_usage.has_value()) {
      cache.series[0].points.emplace_back(point.time_s, 100 * *point.kv_usage);
    }
  }
  return SvgChart(requests) + SvgChart(cache);
}

std::string SweepCharts(const LoadOptions& options, const Report& report) {
  Chart throughput{"Throughput", "requests/s sent", "tokens/s", {{"output", {}}}, /*marks=*/true};
  Chart goodput{"Requests", "requests/s sent", "requests/s", {{"completed", {}}, {"met every objective", {}}}, true};
  std::string html = "<div class=\"charts\">\n";
  for (const SweepStage& stage : report.sweep) {
    throughput.series[0].points.emplace_back(stage.rate, stage.output_throughput);
    goodput.series[0].points.emplace_back(stage.rate, stage.request_throughput);
    goodput.series[1].points.emplace_back(stage.rate, stage.request_goodput);
  }
  absl::StrAppend(&html, SvgChart(throughput), SvgChart(goodput));
  for (size_t i : {0, 1}) {  // TTFT, TPOT
    Chart chart{
        absl::AsciiStrToUpper(report.latencies[i].name), "requests/s sent", "ms", {{"p50", {}}, {"p99", {}}}, true};
    for (const auto& [metric, bound_ms] : options.goodput) {
      chart.y_rule = metric == report.latencies[i].name ? bound_ms : chart.y_rule;
    }
    for (const SweepStage& stage : report.sweep) {
      const auto& [median, p99] = stage.median_p99_ms[i];
      if (median.has_value()) {
        chart.series[0].points.emplace_back(stage.rate, *median);
      }
      if (p99.has_value()) {
        chart.series[1].points.emplace_back(stage.rate, *p99);
      }
    }
    html += SvgChart(chart);
  }
  return html + "</div>\n";
}

std::string SweepSection(const LoadOptions& options, const Report& report) {
  if (report.sweep.empty()) {
    return "";
  }
  const SweepStage* best = BestStage(report);
  std::string html = absl::StrFormat(
      "<h2>Sweep</h2>\n<p>%s At least %g %% of a stage's requests must meet every objective; one that could no longer "
      "hold was stopped, and shows what it did until then. All below the sweep is of %s.</p>\n",
      best == nullptr ? "No rate holds."
                      : absl::StrFormat("<b>%.2f requests/s</b> is the highest rate that holds.", best->rate),
      100 * options.sweep->attainment, best == nullptr ? "the last stage" : "that rate");
  html += SweepCharts(options, report);
  html += "<div class=\"wide\"><table>\n<tr>";
  for (const char* head :
       {"requests/s", "met", "done/s", "goodput/s", "tokens/s", "TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99"}) {
    absl::StrAppend(&html, "<th class=\"n\">", head, "</th>");
  }
  html += "<th></th></tr>\n";
  for (const SweepStage& stage : report.sweep) {
    const std::vector<std::string> cells = {Number(stage.rate),
                                            Number(100 * stage.attainment, " %"),
                                            Number(stage.request_throughput),
                                            Number(stage.request_goodput),
                                            Number(stage.output_throughput),
                                            Number(stage.median_p99_ms[0].first),
                                            Number(stage.median_p99_ms[0].second),
                                            Number(stage.median_p99_ms[1].first),
                                            Number(stage.median_p99_ms[1].second)};
    absl::StrAppend(&html, "<tr><td class=\"n\">", absl::StrJoin(cells, "</td><td class=\"n\">"), "</td><td class=\"",
                    stage.holds ? "holds\">holds" : "fails\">fails", stage.stopped_early ? ", stopped early" : "",
                    "</td></tr>\n");
  }
  return html + "</table></div>\n";
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
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta "
      "http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n<meta "
      "name=\"viewport\" "
      "content=\"width=device-width\"/>\n<title>quire load: ",
      EscapeHtml(report.model), "</title>\n<style>", kStyle, "</style>\n</head>\n<body>\n<h1>",
      EscapeHtml(report.model), "</h1>\n<p class=\"when\">quire load, ", EscapeHtml(report.date), "</p>\n");
  absl::StrAppend(&html, Tiles(report), SweepSection(options, report), LatencyTable(options, report),
                  "<h2>Latencies, cumulative</h2>\n<div class=\"charts\">\n");
  for (const Latency& latency : report.latencies) {
    html += SvgChart(CumulativeChart(options, latency));
  }
  absl::StrAppend(&html, "</div>\n<h2>Over time</h2>\n<div class=\"charts\">\n", SvgChart(InFlightChart(run)),
                  SvgChart(TokenRateChart(run)), run.server.has_value() ? ServerCharts(*run.server) : "", "</div>\n",
                  Failures(run), RunCard(options, run, report), kDefinitions, "</body>\n</html>\n");
  return html;
}

}  // namespace quire::client
