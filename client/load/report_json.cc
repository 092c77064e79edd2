#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/load/report.h"

namespace quire::client {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::pair<const char*, std::optional<double> MetricPoint::*> kMetricMembers[] = {
    {"running", &MetricPoint::running}, {"waiting", &MetricPoint::waiting}, {"kv_cache_usage", &MetricPoint::kv_usage}};

Json OrNull(std::optional<double> value) { return value.has_value() ? Json(*value) : Json(nullptr); }

// JSON has no infinity.
Json NumberOrInf(double value) { return std::isinf(value) ? Json("inf") : Json(value); }

double PerSecond(uint64_t count, const Report& report) {
  return report.duration_s > 0 ? static_cast<double>(count) / report.duration_s : 0;
}

void AddLatency(const LoadOptions& options, const Latency& latency, Json& json) {
  const Samples& samples = latency.samples_ms;
  const std::string suffix = absl::StrCat("_", latency.name, "_ms");
  json[absl::StrCat("mean", suffix)] = OrNull(samples.Mean());
  json[absl::StrCat("median", suffix)] = OrNull(samples.Median());
  json[absl::StrCat("std", suffix)] = OrNull(samples.StandardDeviation());
  // Readers of this format expect p99 whatever the number of samples; below 100 it is the largest, and the list says
  // so.
  json[absl::StrCat("p99", suffix)] = OrNull(samples.Percentile(99));
  if (!samples.Supports(99)) {
    json["unsupported_percentiles"].push_back(absl::StrCat("p99", suffix));
  }
  for (double percent : options.metric_percentiles) {
    if (samples.Supports(percent)) {
      json[absl::StrCat("p", percent, suffix)] = OrNull(samples.Percentile(percent));
    }
  }
}

void AddDetails(const RunResult& run, Json& json) {
  for (const char* key :
       {"input_lens", "output_lens", "ttfts", "itls", "start_times", "latencies", "generated_texts", "errors"}) {
    json[key] = Json::array();
  }
  for (const RequestResult& request : run.requests) {
    const bool ok = request.ok();
    json["input_lens"].push_back(request.prompt_tokens);
    json["output_lens"].push_back(ok ? request.output_tokens : 0);
    json["ttfts"].push_back(ok ? request.first_token_s - request.intended_s : 0.0);
    json["itls"].push_back(ok ? Json(request.itls_s) : Json::array());
    json["start_times"].push_back(request.sent_s);
    json["latencies"].push_back(ok ? request.end_s - request.intended_s : 0.0);
    json["generated_texts"].push_back(request.text);
    json["errors"].push_back(request.error);
  }
}

// What each tenant got, by name.
Json TenantsJson(const RunResult& run) {
  Json tenants = Json::object();
  std::map<std::string, std::vector<double>> ttfts_ms;
  for (const RequestResult& request : run.requests) {
    Json& tenant = tenants[request.tenant];
    if (tenant.is_null()) {
      tenant = {{"completed", 0}, {"failed", 0}, {"cancelled", 0}, {"output_tokens", 0}};
    }
    const char* outcome = request.ok() ? "completed" : request.cancelled ? "cancelled" : "failed";
    tenant[outcome] = tenant[outcome].get<size_t>() + 1;
    if (request.ok()) {
      tenant["output_tokens"] = tenant["output_tokens"].get<uint64_t>() + request.output_tokens;
      ttfts_ms[request.tenant].push_back(1e3 * (request.first_token_s - request.intended_s));
    }
  }
  for (auto& [name, values] : ttfts_ms) {
    const Samples samples(std::move(values));
    tenants[name]["mean_ttft_ms"] = OrNull(samples.Mean());
    tenants[name]["median_ttft_ms"] = OrNull(samples.Median());
    tenants[name]["p99_ttft_ms"] = samples.Supports(99) ? OrNull(samples.Percentile(99)) : Json(nullptr);
  }
  return tenants;
}

Json SweepJson(const Report& report) {
  Json stages = Json::array();
  for (const SweepStage& stage : report.sweep) {
    Json json = {{"request_rate", stage.rate},
                 {"holds", stage.holds},
                 {"attainment", stage.attainment},
                 {"stopped_early", stage.stopped_early},
                 {"duration", stage.duration_s},
                 {"completed", stage.completed},
                 {"failed", stage.failed},
                 {"request_throughput", stage.request_throughput},
                 {"request_goodput", stage.request_goodput},
                 {"output_throughput", stage.output_throughput}};
    for (size_t i = 0; i < report.latencies.size(); ++i) {
      json[absl::StrCat("median_", report.latencies[i].name, "_ms")] = OrNull(stage.median_p99_ms[i].first);
      json[absl::StrCat("p99_", report.latencies[i].name, "_ms")] = OrNull(stage.median_p99_ms[i].second);
    }
    stages.push_back(std::move(json));
  }
  return stages;
}

Json ServerJson(const ServerMetrics& server, bool detailed) {
  Json json = {{"url", server.url}, {"reads", server.points.size()}, {"failed_reads", server.failed_reads}};
  if (!server.error.empty()) {
    json["last_error"] = server.error;
  }
  for (const auto& [name, member] : kMetricMembers) {
    std::vector<double> values;
    for (const MetricPoint& point : server.points) {
      if ((point.*member).has_value()) {
        values.push_back(*(point.*member));
      }
    }
    const Samples samples(std::move(values));
    json[name] = {{"mean", OrNull(samples.Mean())}, {"max", OrNull(samples.Percentile(100))}};
  }
  for (const auto& [name, growth] : server.counters) {
    json[name] = growth;
  }
  const auto queries = server.counters.find("prefix_cache_queries"), hits = server.counters.find("prefix_cache_hits");
  if (queries != server.counters.end() && hits != server.counters.end() && queries->second > 0) {
    json["prefix_cache_hit_rate"] = hits->second / queries->second;
  }
  if (detailed) {
    for (const MetricPoint& point : server.points) {
      json["points"].push_back({{"time_s", point.time_s},
                                {"running", OrNull(point.running)},
                                {"waiting", OrNull(point.waiting)},
                                {"kv_cache_usage", OrNull(point.kv_usage)}});
    }
  }
  return json;
}

}  // namespace

Json ReportJson(const LoadOptions& options, const RunResult& run, const Report& report, bool detailed) {
  Json json = {
      {"date", report.date},
      {"backend", options.backend},
      {"label", options.label.empty() ? Json(nullptr) : Json(options.label)},
      {"model_id", report.model},
      {"tokenizer_id", report.model},
      {"num_prompts", options.num_prompts},
      {"request_rate", NumberOrInf(options.arrivals.request_rate)},
      {"burstiness", NumberOrInf(options.arrivals.burstiness)},
      {"max_concurrency", options.max_concurrency.has_value() ? Json(*options.max_concurrency) : Json(nullptr)},
      {"duration", report.duration_s},
      {"completed", report.completed},
      {"failed", report.failed},
      {"cancelled", report.cancelled},
      {"total_input_tokens", report.total_input_tokens},
      {"total_output_tokens", report.total_output_tokens},
      {"request_throughput", PerSecond(report.completed, report)},
      {"request_goodput", OrNull(report.request_goodput)},
      {"output_throughput", PerSecond(report.total_output_tokens, report)},
      {"total_token_throughput", PerSecond(report.total_input_tokens + report.total_output_tokens, report)},
      {"max_output_tokens_per_s", report.max_output_tokens_per_s},
      {"max_concurrent_requests", report.max_concurrent_requests},
  };
  json["unsupported_percentiles"] = Json::array();
  for (const Latency& latency : report.latencies) {
    AddLatency(options, latency, json);
  }
  json["mean_ttft_from_send_ms"] = OrNull(report.ttft_from_send_ms.Mean());
  json["median_ttft_from_send_ms"] = OrNull(report.ttft_from_send_ms.Median());
  json["mean_client_queue_ms"] = OrNull(report.client_queue_ms.Mean());
  json["mean_scheduling_lag_ms"] = OrNull(report.scheduling_lag_ms.Mean());
  json["p99_scheduling_lag_ms"] = OrNull(report.scheduling_lag_ms.Percentile(99));
  json["client_cpu_cores"] = run.cpu_cores;
  json["total_cached_tokens"] = report.total_cached_tokens;
  json["total_messages"] = report.total_messages;
  json["requests_without_usage"] = report.requests_without_usage;
  if (options.arrivals.ramp.has_value()) {
    json["ramp_up_strategy"] = options.arrivals.ramp->exponential ? "exponential" : "linear";
    json["ramp_up_start_rps"] = options.arrivals.ramp->start_rps;
    json["ramp_up_end_rps"] = options.arrivals.ramp->end_rps;
  }
  json["num_warmups"] = options.num_warmups;
  json["connections"] = options.connections;
  json["dataset_name"] = options.dataset.name;
  json["seed"] = options.seed;
  json["interrupted"] = run.interrupted;
  json["gave_up"] = run.gave_up;
  if (!options.tenant_mix.empty()) {
    json["tenants"] = TenantsJson(run);
  }
  if (run.replay.has_value()) {
    json["replay_checked"] = run.replay->checked;
    json["replay_mismatched"] = run.replay->mismatched.size();
  }
  if (!report.sweep.empty()) {
    const SweepStage* best = BestStage(report);
    json["sweep_attainment"] = options.sweep->attainment;
    json["sweep_request_rate"] = best == nullptr ? Json(nullptr) : Json(best->rate);
    json["sweep"] = SweepJson(report);
  }
  if (run.server.has_value()) {
    json["server_metrics"] = ServerJson(*run.server, detailed);
  }
  for (const auto& [key, value] : options.metadata) {
    json[key] = value;
  }
  if (detailed) {
    AddDetails(run, json);
  }
  return json;
}

std::string RequestLines(const RunResult& run) {
  std::string lines;
  for (const RequestResult& request : run.requests) {
    Json itl_ms = Json::array();
    for (float gap : request.itls_s) {
      itl_ms.push_back(1e3 * gap);
    }
    const bool has_tokens = request.output_tokens > 0;
    const Json line = {{"request_id", request.request_id},
                       {"scheduled_s", request.intended_s},
                       {"sent_s", request.sent_s},
                       {"first_token_s", has_tokens ? Json(request.first_token_s) : Json(nullptr)},
                       {"last_token_s", has_tokens ? Json(request.last_token_s) : Json(nullptr)},
                       {"end_s", request.end_s},
                       {"prompt_tokens", request.prompt_tokens},
                       {"output_tokens", request.output_tokens},
                       {"cached_tokens", request.cached_tokens},
                       {"finish_reason", request.finish_reason},
                       {"grpc_code", request.grpc_code.empty() ? Json(nullptr) : Json(request.grpc_code)},
                       {"http_status", request.http_status == 0 ? Json(nullptr) : Json(request.http_status)},
                       {"error", request.error},
                       {"cancelled", request.cancelled},
                       {"tenant", request.tenant},
                       {"retry_after_ms", OrNull(request.retry_after_ms)},
                       {"itl_ms", std::move(itl_ms)}};
    absl::StrAppend(&lines, line.dump(-1, ' ', false, Json::error_handler_t::replace), "\n");
  }
  return lines;
}

}  // namespace quire::client
