#include "server/metrics.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

// The buckets that dashboards for vLLM know (vllm/v1/metrics/loggers.py), in seconds.
constexpr double kFirstTokenSeconds[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                         1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
constexpr double kTokenSeconds[] = {.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
constexpr double kRequestSeconds[] = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                      30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
constexpr double kOutputs[] = {1, 2, 5, 10, 20};

// 1, 2, 5, 10, 20, 50, ... up to the longest sequence: buckets of counts of tokens.
std::vector<double> TokenCounts(int32_t max_model_len) {
  std::vector<double> bounds;
  for (double decade = 1;; decade *= 10) {
    for (double step : {1, 2, 5}) {
      if (decade * step > max_model_len) return bounds;
      bounds.push_back(decade * step);
    }
  }
}

// Tenants with series of their own: clients choose the names, so their number must be bounded. The rest are one.
constexpr size_t kMaxTenants = 64;
constexpr char kOtherTenants[] = "other";

uint64_t Value(const std::atomic<uint64_t>& counter) { return counter.load(std::memory_order_relaxed); }

constexpr absl::string_view kEndingNames[] = {"finished", "cancelled", "expired", "rejected", "failed"};

}  // namespace

Metrics::Metrics(const Info& info)
    : info_(info),
      time_to_first_token_(kFirstTokenSeconds),
      inter_token_latency_(kTokenSeconds),
      e2e_latency_(kRequestSeconds),
      queue_time_(kRequestSeconds),
      inference_time_(kRequestSeconds),
      prefill_time_(kRequestSeconds),
      decode_time_(kRequestSeconds),
      prompt_tokens_(TokenCounts(info.max_model_len)),
      generation_tokens_(TokenCounts(info.max_model_len)),
      max_tokens_(TokenCounts(info.max_model_len)),
      num_outputs_(kOutputs) {}

void Metrics::Ended(const RequestRecord& record) {
  if (record.ending == RequestEnding::kFinished) {
    (record.reason == "stop" ? stopped_ : reached_length_).fetch_add(1, std::memory_order_relaxed);
    e2e_latency_.Observe(absl::ToDoubleSeconds(record.total));
    queue_time_.Observe(absl::ToDoubleSeconds(record.queued));
    prefill_time_.Observe(absl::ToDoubleSeconds(record.prefill));
    decode_time_.Observe(absl::ToDoubleSeconds(record.decode));
    inference_time_.Observe(absl::ToDoubleSeconds(record.prefill + record.decode));
    prompt_tokens_.Observe(record.prompt_tokens);
    generation_tokens_.Observe(record.completion_tokens);
    max_tokens_.Observe(record.max_tokens);
    num_outputs_.Observe(record.num_outputs);
  }
  {
    const std::lock_guard lock(shares_mutex_);
    const bool known = shares_.contains(record.tenant) || shares_.size() < kMaxTenants;
    Share& share = shares_[known ? record.tenant : kOtherTenants];
    ++share.requests;
    share.prompt_tokens += record.prompt_tokens;
    share.completion_tokens += record.completion_tokens;
  }
  Count(record.ending);  // last: whoever sees the ending sees all of it
}

uint64_t Metrics::UnderWay() const {
  uint64_t over = 0;  // read before received_, so that it is never more
  for (const auto& ending : endings_) over += Value(ending);
  const uint64_t received = Value(received_);
  return received - std::min(received, over);
}

std::string Metrics::Text(const EngineSnapshot& snapshot) const {
  PrometheusText out({{"model_name", info_.model_name}, {"engine", "0"}});
  WriteEngine(snapshot, out);
  WriteLatencies(out);
  WriteOwn(snapshot, out);
  return out.text();
}

void Metrics::WriteEngine(const EngineSnapshot& snapshot, PrometheusText& out) const {
  const SchedulerStats& stats = snapshot.scheduler;
  const auto running = static_cast<uint64_t>(stats.num_running);
  const uint64_t under_way = UnderWay();
  const auto gauge = [&](const char* name, const char* help, auto value) {
    out.Begin(name, "gauge", help, true);
    out.Sample(value);
  };
  const auto counter = [&](const char* name, const char* help, uint64_t value) {
    out.Begin(name, "counter", help, true);
    out.Sample(value);
  };
  gauge("vllm:num_requests_running", "Requests that are part of the present step.", running);
  // Taken from the requests that are not over, so that one that is still being tokenized or whose last event is on its
  // way is never lost between the two gauges.
  gauge("vllm:num_requests_waiting", "Requests received that neither run nor are over.",
        under_way - std::min(under_way, running));
  gauge("vllm:kv_cache_usage_perc", "Share of KV blocks that requests hold, 0 to 1.",
        info_.num_blocks == 0 ? 0.0 : static_cast<double>(stats.blocks_held) / info_.num_blocks);
  out.Begin("vllm:cache_config_info", "gauge", "The KV cache, in labels.", true);
  out.Sample(uint64_t{1}, {{"block_size", absl::StrCat(info_.block_size)},
                           {"num_gpu_blocks", absl::StrCat(info_.num_blocks)},
                           {"cache_dtype", info_.kv_cache_dtype},
                           {"enable_prefix_caching", info_.enable_prefix_caching ? "True" : "False"}});
  counter("vllm:prompt_tokens_total", "Prompt tokens of admitted requests.", stats.prompt_tokens);
  counter("vllm:generation_tokens_total", "Tokens sampled.", stats.sampled_tokens);
  counter("vllm:num_preemptions_total", "Times that a running request gave its blocks to an older one.",
          stats.preemptions);
  counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.", stats.prefix_queries);
  counter("vllm:prefix_cache_hits_total", "Prompt tokens found there.", stats.prefix_hits);
  out.Begin("vllm:request_success_total", "counter", "Requests over, by reason.", true);
  out.Sample(Value(stopped_), {{"finished_reason", "stop"}});
  out.Sample(Value(reached_length_), {{"finished_reason", "length"}});
  out.Sample(Value(endings_[static_cast<size_t>(RequestEnding::kCancelled)]) +
                 Value(endings_[static_cast<size_t>(RequestEnding::kExpired)]),
             {{"finished_reason", "abort"}});
  counter("vllm:corrupted_requests_total", "Requests that ended because logits were not finite.", stats.corrupted);
  // Its count is the heartbeat.
  out.Begin("vllm:iteration_tokens_total", "histogram", "Tokens computed in a step.", true);
  uint64_t steps = 0;
  for (size_t i = 0; i < StepSizes::kBounds.size(); ++i) {
    out.Sample(steps += snapshot.step_sizes.counts[i], {{"le", absl::StrCat(StepSizes::kBounds[i])}}, "_bucket");
  }
  out.Sample(steps += snapshot.step_sizes.counts.back(), {{"le", "+Inf"}}, "_bucket");
  out.Sample(snapshot.step_tokens, {}, "_sum");
  out.Sample(steps, {}, "_count");
}

void Metrics::WriteLatencies(PrometheusText& out) const {
  const auto histogram = [&](const char* name, const char* help, const Histogram& values) {
    out.Begin(name, "histogram", help, true);
    out.Buckets(values);
  };
  histogram("vllm:time_to_first_token_seconds", "From arrival to the first token.", time_to_first_token_);
  histogram("vllm:inter_token_latency_seconds", "Between consecutive tokens of an output.", inter_token_latency_);
  histogram("vllm:time_per_output_token_seconds", "The same under its older name.", inter_token_latency_);
  histogram("vllm:e2e_request_latency_seconds", "From arrival to the last token.", e2e_latency_);
  histogram("vllm:request_queue_time_seconds", "From arrival to the first scheduled chunk.", queue_time_);
  histogram("vllm:request_inference_time_seconds", "From the first scheduled chunk to the last token.",
            inference_time_);
  histogram("vllm:request_prefill_time_seconds", "From the first scheduled chunk to the first token.", prefill_time_);
  histogram("vllm:request_decode_time_seconds", "From the first token to the last.", decode_time_);
  histogram("vllm:request_prompt_tokens", "Prompt tokens of a finished request.", prompt_tokens_);
  histogram("vllm:request_generation_tokens", "Generated tokens of a finished request.", generation_tokens_);
  histogram("vllm:request_params_max_tokens", "max_tokens in effect of a finished request.", max_tokens_);
  histogram("vllm:request_params_n", "Outputs of a finished request.", num_outputs_);
}

void Metrics::WriteOwn(const EngineSnapshot& snapshot, PrometheusText& out) const {
  const SchedulerStats& stats = snapshot.scheduler;
  out.Begin("quire_kv_blocks", "gauge", "KV blocks by state; cached ones are free for whoever needs them.", false);
  out.Sample(static_cast<uint64_t>(stats.blocks_free), {{"state", "free"}});
  out.Sample(static_cast<uint64_t>(stats.blocks_held), {{"state", "held"}});
  out.Sample(static_cast<uint64_t>(stats.blocks_cached), {{"state", "cached"}});
  const auto counter = [&](const char* name, const char* help, uint64_t value) {
    out.Begin(name, "counter", help, false);
    out.Sample(value);
  };
  counter("quire_requests_received_total", "Generate calls.", Value(received_));
  out.Begin("quire_requests_total", "counter", "Generate calls that are over, by ending.", false);
  for (size_t i = 0; i < endings_.size(); ++i) {
    out.Sample(Value(endings_[i]), {{"ending", std::string(kEndingNames[i])}});
  }
  counter("quire_tokens_computed_total", "Tokens sampled, and positions run again after a preemption.",
          stats.computed_tokens);
  counter("quire_tokens_delivered_total", "Ids written to streams.", Value(delivered_));
  counter("quire_tokens_recomputed_total", "Positions run again after a preemption.", stats.recomputed_tokens);
  counter("quire_tokens_discarded_total", "Tokens sampled for a stream that was over.",
          stats.discarded_tokens + Value(discarded_));
  counter("quire_late_events_total", "What the engine told of streams that were over.", Value(late_events_));
  counter("quire_stream_pauses_total", "Times that a request stopped running because its client did not read.",
          stats.pauses);
  counter("quire_stream_stalls_total", "Streams cut because their client did not read.", Value(stalls_));
  counter("quire_spans_exported_total", "Spans that the collector of --otlp-endpoint has taken.",
          Value(spans_exported_));
  counter("quire_spans_dropped_total", "Spans lost because it was slow, away or did not want them.",
          Value(spans_dropped_));
  out.Begin("quire_step_seconds_total", "counter", "Time of the engine thread, by phase of the step.", false);
  out.Sample(absl::ToDoubleSeconds(snapshot.schedule_time), {{"phase", "schedule"}});
  out.Sample(absl::ToDoubleSeconds(snapshot.compute_time), {{"phase", "compute"}});
  out.Sample(absl::ToDoubleSeconds(snapshot.commit_time), {{"phase", "commit"}});
  WriteTenants(out);
}

void Metrics::WriteTenants(PrometheusText& out) const {
  const std::lock_guard lock(shares_mutex_);
  out.Begin("quire_tenant_requests_total", "counter", "Accepted requests that are over, by tenant.", false);
  for (const auto& [tenant, share] : shares_) out.Sample(share.requests, {{"tenant", tenant}});
  out.Begin("quire_tenant_tokens_total", "counter", "Their tokens, by tenant and kind.", false);
  for (const auto& [tenant, share] : shares_) {
    out.Sample(share.prompt_tokens, {{"tenant", tenant}, {"kind", "prompt"}});
    out.Sample(share.completion_tokens, {{"tenant", tenant}, {"kind", "completion"}});
  }
}

}  // namespace quire
