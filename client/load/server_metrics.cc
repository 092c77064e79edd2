#include "client/load/server_metrics.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/scrape.h"

namespace quire::client {
namespace {

// The names of one figure among servers. quire's are vLLM's.
using Names = std::vector<const char*>;
const Names kRunning = {"vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing"};
const Names kWaiting = {"vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred"};
const Names kKvUsage = {"vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage",
                        "llamacpp:kv_cache_usage_ratio"};
const std::vector<std::pair<const char*, Names>> kCounters = {
    {"prompt_tokens", {"vllm:prompt_tokens_total", "sglang:prompt_tokens_total", "llamacpp:prompt_tokens_total"}},
    {"generation_tokens",
     {"vllm:generation_tokens_total", "sglang:generation_tokens_total", "llamacpp:tokens_predicted_total"}},
    {"preemptions", {"vllm:num_preemptions_total"}},
    {"prefix_cache_queries", {"vllm:prefix_cache_queries_total"}},
    {"prefix_cache_hits", {"vllm:prefix_cache_hits_total"}},
};

// Over the series of one name: several engines, or data-parallel ranks.
std::optional<double> Sum(const std::vector<Sample>& samples, const Names& names) {
  for (const char* name : names) {
    if (const std::optional<double> sum = SumOf(samples, name); sum.has_value()) {
      return sum;
    }
  }
  return std::nullopt;
}

std::optional<double> Most(const std::vector<Sample>& samples, const Names& names) {
  std::optional<double> most;
  for (const Sample& sample : samples) {
    if (std::find(names.begin(), names.end(), sample.name) != names.end()) {
      most = std::max(most.value_or(sample.value), sample.value);
    }
  }
  return most;
}

}  // namespace

MetricPoint ReadMetrics(absl::string_view page, std::map<std::string, double>& counters) {
  const std::vector<Sample> samples = ParsePrometheus(page);
  for (const auto& [key, names] : kCounters) {
    if (const std::optional<double> sum = Sum(samples, names); sum.has_value()) {
      counters[key] = *sum;
    }
  }
  return {0, Sum(samples, kRunning), Sum(samples, kWaiting), Most(samples, kKvUsage)};
}

MetricsReader::MetricsReader(const std::string& url, double interval_s) {
  metrics_.url = absl::StrContains(url, "://") ? url : absl::StrCat("http://", url, "/metrics");
  Read();  // before the first request
  thread_ = std::thread([this, interval_s] { Run(interval_s); });
}

MetricsReader::~MetricsReader() {
  if (thread_.joinable()) {
    Stop();
  }
}

std::optional<MetricPoint> MetricsReader::latest() {
  std::lock_guard<std::mutex> lock(mutex_);
  return metrics_.points.empty() ? std::nullopt : std::optional<MetricPoint>(metrics_.points.back());
}

ServerMetrics MetricsReader::Stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    stopped_.notify_one();
  }
  thread_.join();
  Read();
  return std::move(metrics_);
}

void MetricsReader::Read() {
  const double time_s = std::chrono::duration<double>(Clock::now() - start_).count();
  const absl::StatusOr<std::string> page = HttpGetUrl(metrics_.url);
  std::lock_guard<std::mutex> lock(mutex_);
  if (!page.ok()) {
    ++metrics_.failed_reads;
    metrics_.error = std::string(page.status().message());
    return;
  }
  std::map<std::string, double> counters;
  MetricPoint point = ReadMetrics(*page, counters);
  point.time_s = time_s;
  if (metrics_.points.empty()) {
    first_ = counters;
  }
  metrics_.points.push_back(point);
  for (const auto& [key, value] : counters) {
    metrics_.counters[key] = value - (first_.count(key) > 0 ? first_[key] : 0);
  }
}

void MetricsReader::Run(double interval_s) {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopped_.wait_for(lock, std::chrono::duration<double>(interval_s), [this] { return stop_; })) {
    lock.unlock();
    Read();
    lock.lock();
  }
}

}  // namespace quire::client
