#include "client/load/report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace quire::client {
namespace {

// The largest number of tokens that came in one of the seconds [0, 1), [1, 2), ... of the run.
double MaxTokensPerSecond(const RunResult& run) {
  std::map<int64_t, double> tokens;  // by second
  for (const RequestResult& request : run.requests) {
    if (!request.ok()) {
      continue;
    }
    const double weight = TokensPerCounted(request);
    double at = request.first_token_s;
    tokens[static_cast<int64_t>(at)] += weight * request.first_tokens;
    for (float itl : request.itls_s) {
      at += itl;
      tokens[static_cast<int64_t>(at)] += weight;
    }
  }
  double most = 0;
  for (const auto& [second, count] : tokens) {
    most = std::max(most, count);
  }
  return most;
}

size_t MaxConcurrent(const RunResult& run) {
  std::vector<std::pair<double, int>> changes;  // time, +1 or -1; at one time the ends come first
  for (const RequestResult& request : run.requests) {
    changes.emplace_back(request.sent_s, 1);
    changes.emplace_back(request.end_s, -1);
  }
  std::sort(changes.begin(), changes.end());
  int64_t now = 0, most = 0;
  for (const auto& [time, change] : changes) {
    now += change;
    most = std::max(most, now);
  }
  return static_cast<size_t>(most);
}

}  // namespace

bool MeetsObjectives(const RequestResult& request, const std::vector<std::pair<std::string, double>>& objectives) {
  return std::all_of(objectives.begin(), objectives.end(), [&](const auto& objective) {
    const double ms = objective.first == "ttft"   ? TtftMs(request)
                      : objective.first == "tpot" ? TpotMs(request).value_or(0)
                                                  : E2elMs(request);
    return ms <= objective.second;
  });
}

Report MakeReport(const LoadOptions& options, const RunResult& run, const std::string& model, const std::string& date) {
  Report report;
  report.date = date;
  report.model = model;
  report.duration_s = run.duration_s;
  std::vector<double> ttft, tpot, itl, e2el, lag, queue, from_send;
  for (const RequestResult& request : run.requests) {
    lag.push_back(1e3 * (request.sent_s - request.due_s));
    queue.push_back(1e3 * (request.sent_s - request.intended_s));
    if (!request.ok()) {
      ++(request.cancelled ? report.cancelled : report.failed);
      continue;
    }
    ++report.completed;
    report.total_input_tokens += request.prompt_tokens;
    report.total_output_tokens += request.output_tokens;
    report.total_cached_tokens += request.cached_tokens;
    report.total_messages += request.num_messages;
    report.requests_without_usage += request.has_usage ? 0 : 1;
    ttft.push_back(TtftMs(request));
    from_send.push_back(1e3 * (request.first_token_s - request.sent_s));
    e2el.push_back(E2elMs(request));
    if (const std::optional<double> ms = TpotMs(request); ms.has_value()) {
      tpot.push_back(*ms);
    }
    for (float gap : request.itls_s) {
      itl.push_back(1e3 * gap);
    }
    report.num_good += MeetsObjectives(request, options.goodput) ? 1 : 0;
  }
  if (!options.goodput.empty() && run.duration_s > 0) {
    report.request_goodput = static_cast<double>(report.num_good) / run.duration_s;
  }
  report.max_output_tokens_per_s = MaxTokensPerSecond(run);
  report.max_concurrent_requests = MaxConcurrent(run);
  report.latencies = {{"ttft", "Time to First Token", Samples(std::move(ttft))},
                      {"tpot", "Time per Output Token (excl. 1st token)", Samples(std::move(tpot))},
                      {"itl", "Inter-token Latency", Samples(std::move(itl))},
                      {"e2el", "End-to-end Latency", Samples(std::move(e2el))}};
  report.scheduling_lag_ms = Samples(std::move(lag));
  report.client_queue_ms = Samples(std::move(queue));
  report.ttft_from_send_ms = Samples(std::move(from_send));
  return report;
}

const SweepStage* BestStage(const Report& report) {
  const SweepStage* best = nullptr;
  for (const SweepStage& stage : report.sweep) {
    best = stage.holds && (best == nullptr || stage.rate > best->rate) ? &stage : best;
  }
  return best;
}

std::vector<std::pair<size_t, std::string>> FailureCounts(const RunResult& run) {
  std::map<std::string, size_t> counts;
  for (const RequestResult& request : run.requests) {
    if (request.failed()) {
      ++counts[request.error];
    }
  }
  std::vector<std::pair<size_t, std::string>> ranked;
  for (const auto& [error, count] : counts) {
    ranked.emplace_back(count, error);
  }
  std::sort(ranked.rbegin(), ranked.rend());
  return ranked;
}

std::string ResultFilename(const LoadOptions& options, const Report& report) {
  const std::string concurrency =
      options.max_concurrency.has_value() ? absl::StrCat("-concurrency", *options.max_concurrency) : "";
  const std::string model = report.model.substr(report.model.rfind('/') + 1);
  return absl::StrCat(options.label.empty() ? options.backend : options.label, "-", options.arrivals.request_rate,
                      "qps", concurrency, "-", model, "-", report.date, ".json");
}

}  // namespace quire::client
