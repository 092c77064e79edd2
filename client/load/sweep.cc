#include "client/load/sweep.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quire::client {
namespace {

constexpr size_t kMinRequests = 20;
// A server that fails at a 64th of the first rate is not asked for less.
constexpr double kMinShareOfStart = 1.0 / 64;
// A server that still holds there is no server of models.
constexpr double kMaxRps = 1e6;
constexpr double kRounding = 1e-9;

std::string Cell(std::optional<double> value) { return value.has_value() ? absl::StrFormat("%.1f", *value) : "n/a"; }

}  // namespace

std::optional<double> RateSearch::Next() const {
  if (!low_.has_value() && !high_.has_value()) {
    return start_rps_;
  }
  if (!high_.has_value()) {
    return *low_ < kMaxRps ? std::optional<double>(2 * *low_) : std::nullopt;
  }
  if (!low_.has_value()) {
    return *high_ > start_rps_ * kMinShareOfStart * (1 + kRounding) ? std::optional<double>(*high_ / 2) : std::nullopt;
  }
  if (*high_ <= *low_ * (1 + precision_)) {
    return std::nullopt;
  }
  return std::sqrt(*low_ * *high_);
}

void RateSearch::Tell(double rate, bool holds) {
  if (holds) {
    low_ = std::max(rate, low_.value_or(rate));
  } else {
    high_ = std::min(rate, high_.value_or(rate));
  }
}

size_t StageRequests(const SweepOptions& options, double rate) {
  return std::max(kMinRequests, static_cast<size_t>(std::ceil(rate * options.stage_seconds)));
}

size_t MissesAllowed(const SweepOptions& options, size_t planned) {
  return static_cast<size_t>(std::floor((1 - options.attainment) * static_cast<double>(planned) + kRounding));
}

SweepStage Summarize(const SweepOptions& options, double rate, size_t planned, const RunResult& run,
                     const Report& report) {
  const size_t num_good = report.num_good;
  SweepStage stage;
  stage.rate = rate;
  stage.attainment = planned > 0 ? static_cast<double>(num_good) / static_cast<double>(planned) : 0;
  stage.stopped_early = run.gave_up || run.interrupted;
  stage.holds = !stage.stopped_early && num_good + MissesAllowed(options, planned) >= planned;
  stage.completed = report.completed;
  stage.failed = report.failed;
  stage.duration_s = report.duration_s;
  if (report.duration_s > 0) {
    stage.request_throughput = static_cast<double>(report.completed) / report.duration_s;
    stage.request_goodput = static_cast<double>(num_good) / report.duration_s;
    stage.output_throughput = static_cast<double>(report.total_output_tokens) / report.duration_s;
  }
  for (const Latency& latency : report.latencies) {
    const Samples& samples = latency.samples_ms;
    stage.median_p99_ms.emplace_back(samples.Median(), samples.Supports(99) ? samples.Percentile(99) : std::nullopt);
  }
  return stage;
}

std::string StageHeader() {
  return absl::StrFormat("%9s %7s %9s %9s %10s %11s %11s %11s %11s\n", "req/s", "met", "done/s", "good/s", "tok/s",
                         "TTFT p50 ms", "TTFT p99 ms", "TPOT p50 ms", "TPOT p99 ms");
}

std::string StageLine(const SweepStage& stage) {
  return absl::StrFormat(
      "%9.2f %6.1f%% %9.2f %9.2f %10.1f %11s %11s %11s %11s  %s\n", stage.rate, 100 * stage.attainment,
      stage.request_throughput, stage.request_goodput, stage.output_throughput, Cell(stage.median_p99_ms[0].first),
      Cell(stage.median_p99_ms[0].second), Cell(stage.median_p99_ms[1].first), Cell(stage.median_p99_ms[1].second),
      stage.holds           ? "holds"
      : stage.stopped_early ? "fails (stopped when that was certain)"
                            : "fails");
}

std::string SweepTable(const SweepOptions& options, const std::vector<SweepStage>& stages) {
  std::string table = StageHeader();
  const SweepStage* best = nullptr;
  const SweepStage* worst = nullptr;  // the lowest that failed
  for (const SweepStage& stage : stages) {
    table += StageLine(stage);
    best = stage.holds ? &stage : best;
    worst = worst == nullptr && !stage.holds ? &stage : worst;
  }
  const std::string demand =
      absl::StrFormat("%g %% of the requests must meet every objective", 100 * options.attainment);
  if (best == nullptr) {
    return absl::StrCat(table, "No rate holds: ", demand, ".\n");
  }
  absl::StrAppendFormat(&table, "Highest rate that holds: %.2f requests/s, %.1f output tokens/s", best->rate,
                        best->output_throughput);
  if (worst != nullptr) {
    absl::StrAppendFormat(&table, "; %.2f requests/s does not", worst->rate);
  }
  return absl::StrCat(table, " (", demand, ").\n");
}

}  // namespace quire::client
