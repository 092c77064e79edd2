#include "client/load_view.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quire::client {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kBarWidth = 40;
constexpr size_t kMaxTenants = 5;  // that a screen shows, the busiest first

// A figure of the metrics page and its name in --json.
struct FigureSource {
  const char* name;
  const char* metric;
  const char* state;  // of this label only; null: all
};

constexpr FigureSource kFigures[] = {
    {"running", "vllm:num_requests_running", nullptr},
    {"waiting", "vllm:num_requests_waiting", nullptr},
    {"kv_cache_usage", "vllm:kv_cache_usage_perc", nullptr},
    {"kv_blocks_free", "quire_kv_blocks", "free"},
    {"kv_blocks_held", "quire_kv_blocks", "held"},
    {"kv_blocks_cached", "quire_kv_blocks", "cached"},
    {"prompt_tokens", "vllm:prompt_tokens_total", nullptr},
    {"generation_tokens", "vllm:generation_tokens_total", nullptr},
    {"preemptions", "vllm:num_preemptions_total", nullptr},
    {"prefix_cache_queries", "vllm:prefix_cache_queries_total", nullptr},
    {"prefix_cache_hits", "vllm:prefix_cache_hits_total", nullptr},
};

// A latency, its histogram and what a screen calls it. Not the time in the queue: its first bucket ends at 0.3 s, which
// says nothing of a queue that is short.
struct LatencySource {
  const char* name;
  const char* metric;
  const char* title;
};

constexpr LatencySource kLatencies[] = {
    {"ttft", "vllm:time_to_first_token_seconds", "first token"},
    {"itl", "vllm:inter_token_latency_seconds", "next token"},
    {"e2el", "vllm:e2e_request_latency_seconds", "whole"},
};

// A count as an integer: Prometheus text has floating point only.
Json NumberJson(double value) {
  constexpr double kExact = int64_t{1} << 53;  // integers below it are exact
  const bool is_count = value == std::floor(value) && std::abs(value) < kExact;
  return is_count ? Json(static_cast<int64_t>(value)) : Json(value);
}

}  // namespace

LoadView::LoadView(const std::vector<Sample>& samples) {
  for (const FigureSource& figure : kFigures) {
    std::map<std::string, std::string> labels;
    if (figure.state != nullptr) labels["state"] = figure.state;
    figures_[figure.name] = SumOf(samples, figure.metric, labels);
  }
  for (const LatencySource& latency : kLatencies) {
    const std::string series = absl::StrCat(latency.metric, "_bucket");
    Buckets& buckets = latencies_[latency.name];
    for (const Sample& sample : samples) {
      const auto bound = sample.name == series ? sample.labels.find("le") : sample.labels.end();
      double value = 0;
      if (bound != sample.labels.end() && absl::SimpleAtod(bound->second, &value)) buckets[value] += sample.value;
    }
  }
  for (const Sample& sample : samples) {
    const auto tenant = sample.labels.find("tenant");
    if (tenant == sample.labels.end()) continue;
    if (sample.name == "quire_tenant_requests_total") tenants_[tenant->second].requests = sample.value;
    const auto kind = sample.labels.find("kind");
    if (sample.name != "quire_tenant_tokens_total" || kind == sample.labels.end()) continue;
    Tenant& share = tenants_[tenant->second];
    (kind->second == "prompt" ? share.prompt_tokens : share.completion_tokens) = sample.value;
  }
}

std::optional<double> LoadView::Figure(absl::string_view name) const {
  const auto found = figures_.find(std::string(name));
  return found == figures_.end() ? std::nullopt : found->second;
}

Json LoadView::ToJson() const {
  Json json = Json::object();
  for (const FigureSource& figure : kFigures) {
    const std::optional<double> value = Figure(figure.name);
    json[figure.name] = value ? NumberJson(*value) : Json(nullptr);
  }
  for (const LatencySource& latency : kLatencies) {
    for (const int percent : {50, 99}) {
      const std::optional<double> seconds = Quantile(latency.name, percent / 100.0, nullptr);
      json[absl::StrCat("p", percent, "_", latency.name, "_ms")] = seconds ? Json(*seconds * 1e3) : Json(nullptr);
    }
  }
  json["tenants"] = Json::object();
  for (const auto& [name, tenant] : tenants_) {
    json["tenants"][name] = {{"requests", NumberJson(tenant.requests)},
                             {"prompt_tokens", NumberJson(tenant.prompt_tokens)},
                             {"completion_tokens", NumberJson(tenant.completion_tokens)}};
  }
  return json;
}

std::string LoadView::Count(absl::string_view name) const {
  const std::optional<double> value = Figure(name);
  return value ? absl::StrFormat("%.0f", *value) : "n/a";
}

double LoadView::Grown(absl::string_view name, const LoadView* before) const {
  const double now = Figure(name).value_or(0);
  return before == nullptr ? now : now - before->Figure(name).value_or(0);
}

std::string LoadView::Rate(absl::string_view name, const LoadView* before, double seconds) const {
  if (before == nullptr || !Figure(name) || !before->Figure(name)) return "";
  return absl::StrFormat(" (%.0f/s)", Grown(name, before) / seconds);
}

std::optional<double> LoadView::Quantile(absl::string_view latency, double q, const LoadView* before) const {
  Buckets buckets = latencies_.find(std::string(latency))->second;
  if (before != nullptr) {
    for (const auto& [bound, count] : before->latencies_.find(std::string(latency))->second) buckets[bound] -= count;
  }
  const double total = buckets.empty() ? 0 : buckets.rbegin()->second;
  if (total <= 0) return std::nullopt;
  // Linear inside a bucket, as Prometheus' histogram_quantile; beyond the last bound nothing is known but the bound.
  double bound_below = 0, count_below = 0;
  for (const auto& [bound, count] : buckets) {
    if (count >= q * total && count > count_below) {
      if (std::isinf(bound)) break;
      return bound_below + (bound - bound_below) * (q * total - count_below) / (count - count_below);
    }
    if (!std::isinf(bound)) bound_below = bound;
    count_below = count;
  }
  return bound_below;
}

std::string LoadView::BlocksLine() const {
  const double free = Figure("kv_blocks_free").value_or(0), held = Figure("kv_blocks_held").value_or(0),
               cached = Figure("kv_blocks_cached").value_or(0), all = free + held + cached;
  if (all == 0) return "";
  // Rounded up, so that a single block shows.
  const int held_width = static_cast<int>(std::ceil(kBarWidth * held / all));
  const int used_width = std::max(held_width, static_cast<int>(std::ceil(kBarWidth * (held + cached) / all)));
  return absl::StrFormat("cache    [%s%s%s] %.1f%%: %.0f blocks held (#), %.0f cached (+), %.0f free\n",
                         std::string(held_width, '#'), std::string(used_width - held_width, '+'),
                         std::string(kBarWidth - used_width, ' '), 100 * held / all, held, cached, free);
}

std::string LoadView::LatencyLine(const LoadView* before) const {
  std::string line;
  for (const LatencySource& latency : kLatencies) {
    const std::optional<double> median = Quantile(latency.name, 0.5, before),
                                tail = Quantile(latency.name, 0.99, before);
    if (!median || !tail) continue;
    absl::StrAppendFormat(&line, "%s%s %.3g / %.3g", line.empty() ? "latency  " : ", ", latency.title, *median * 1e3,
                          *tail * 1e3);
  }
  return line.empty() ? "" : absl::StrCat(line, " ms (median / 99%, by bucket)\n");
}

std::string LoadView::TenantLines(const LoadView* before, double seconds) const {
  std::vector<std::pair<double, std::string>> shares;  // tokens taken, name
  double all = 0;
  for (const auto& [name, tenant] : tenants_) {
    Tenant past;
    if (before != nullptr) {
      if (const auto found = before->tenants_.find(name); found != before->tenants_.end()) past = found->second;
    }
    const double tokens = tenant.prompt_tokens + tenant.completion_tokens - past.prompt_tokens - past.completion_tokens;
    if (tokens > 0) shares.emplace_back(tokens, name.empty() ? "(none)" : name);
    all += tokens;
  }
  std::sort(shares.rbegin(), shares.rend());
  std::string lines;
  for (size_t i = 0; i < std::min(shares.size(), kMaxTenants); ++i) {
    absl::StrAppendFormat(&lines, "%s%-24s %5.1f%% of the tokens of ended requests", i == 0 ? "tenants  " : "         ",
                          shares[i].second, 100 * shares[i].first / all);
    if (before != nullptr) absl::StrAppendFormat(&lines, ", %.0f/s", shares[i].first / seconds);
    lines += '\n';
  }
  if (shares.size() > kMaxTenants) absl::StrAppendFormat(&lines, "         and %d more\n", shares.size() - kMaxTenants);
  return lines;
}

std::string LoadView::Screen(const LoadView* before, double seconds) const {
  std::string text = absl::StrFormat("load     %s running, %s waiting, %s preemptions\n", Count("running"),
                                     Count("waiting"), Count("preemptions"));
  absl::StrAppend(&text, BlocksLine());
  if (const double queries = Grown("prefix_cache_queries", before); queries > 0) {
    absl::StrAppendFormat(&text, "prefix   %.1f%% of %.0f prompt tokens found in the cache\n",
                          100 * Grown("prefix_cache_hits", before) / queries, queries);
  }
  absl::StrAppendFormat(&text, "tokens   %s of prompts%s, %s generated%s\n", Count("prompt_tokens"),
                        Rate("prompt_tokens", before, seconds), Count("generation_tokens"),
                        Rate("generation_tokens", before, seconds));
  absl::StrAppend(&text, LatencyLine(before), TenantLines(before, seconds));
  return text;
}

}  // namespace quire::client
