// Metrics: the text is Prometheus's, the names and buckets are those that dashboards know, and the books balance.

#include "server/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/server/finished_request.h"

namespace quire {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Metrics::Info Info() {
  Metrics::Info info;
  info.model_name = "tiny \"one\"";
  info.block_size = 16;
  info.num_blocks = 40;
  info.max_model_len = 60;
  info.kv_cache_dtype = "bfloat16";
  return info;
}

TEST(PrometheusTextTest, WritesFamiliesWithEscapedLabels) {
  PrometheusText out(PrometheusText::Labels{{"model_name", "a\\b\"c\nd"}});
  out.Begin("x:gauge", "gauge", "Help.", true);
  out.Sample(0.5, {{"k", "v"}});
  out.Begin("plain_total", "counter", "Help.", false);
  out.Sample(uint64_t{18446744073709551615u});
  EXPECT_EQ(out.text(),
            "# HELP x:gauge Help.\n# TYPE x:gauge gauge\nx:gauge{model_name=\"a\\\\b\\\"c\\nd\",k=\"v\"} 0.5\n"
            "# HELP plain_total Help.\n# TYPE plain_total counter\nplain_total 18446744073709551615\n");
}

TEST(PrometheusTextTest, HistogramBucketsAreCumulative) {
  const double bounds[] = {0.1, 1};
  Histogram histogram(bounds);
  for (const double value : {0.05, 0.1, 0.5, 7.0}) histogram.Observe(value);
  PrometheusText out(PrometheusText::Labels{});
  out.Begin("h", "histogram", "Help.", true);
  out.Buckets(histogram);
  EXPECT_THAT(
      out.text(),
      HasSubstr("h_bucket{le=\"0.1\"} 2\nh_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 4\nh_sum 7.65\nh_count 4\n"));
}

TEST(MetricsTest, TellsTheEnginesCountsFromItsSnapshot) {
  EngineSnapshot snapshot;
  snapshot.scheduler.num_running = 2;
  snapshot.scheduler.blocks_free = 20;
  snapshot.scheduler.blocks_held = 10;
  snapshot.scheduler.blocks_cached = 10;
  snapshot.scheduler.sampled_tokens = 33;
  snapshot.scheduler.recomputed_tokens = 5;
  snapshot.scheduler.computed_tokens = 39;
  snapshot.scheduler.discarded_tokens = 1;
  for (const int32_t rows : {1, 8, 9, 90000}) snapshot.step_sizes.Add(rows);
  snapshot.step_tokens = 90018;
  Metrics metrics(Info());
  for (int i = 0; i < 5; ++i) metrics.Received();
  const std::string text = metrics.Text(snapshot);
  const std::string labels = "{model_name=\"tiny \\\"one\\\"\",engine=\"0\"";
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_running" + labels + "} 2\n"));
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_waiting" + labels + "} 3\n"));
  EXPECT_THAT(text, HasSubstr("vllm:kv_cache_usage_perc" + labels + "} 0.25\n"));
  EXPECT_THAT(text, HasSubstr("vllm:generation_tokens_total" + labels + "} 33\n"));
  EXPECT_THAT(text, HasSubstr("vllm:cache_config_info" + labels + ",block_size=\"16\",num_gpu_blocks=\"40\""));
  for (const char* bucket : {"1\"} 1", "8\"} 2", "16\"} 3", "16384\"} 3", "+Inf\"} 4"}) {
    EXPECT_THAT(text, HasSubstr("vllm:iteration_tokens_total_bucket" + labels + ",le=\"" + bucket + "\n"));
  }
  EXPECT_THAT(text, HasSubstr("vllm:iteration_tokens_total_sum" + labels + "} 90018\n"));
  EXPECT_THAT(text, HasSubstr("vllm:iteration_tokens_total_count" + labels + "} 4\n"));
  EXPECT_THAT(text, HasSubstr("quire_kv_blocks{state=\"held\"} 10\n"));
  EXPECT_THAT(text, HasSubstr("quire_tokens_computed_total 39\n"));
  EXPECT_THAT(text, HasSubstr("quire_tokens_discarded_total 1\n"));
}

TEST(MetricsTest, EveryReceivedRequestHasOneEnding) {
  Metrics metrics(Info());
  for (int i = 0; i < 5; ++i) metrics.Received();
  metrics.Rejected();
  metrics.Ended(FinishedRequest("stop"));
  metrics.Ended(FinishedRequest("length"));
  RequestRecord cancelled = FinishedRequest("cancelled");
  cancelled.ending = RequestEnding::kCancelled;
  metrics.Ended(cancelled);
  RequestRecord expired = FinishedRequest("expired");
  expired.ending = RequestEnding::kExpired;
  metrics.Ended(expired);
  const std::string text = metrics.Text(EngineSnapshot());
  for (const char* line : {"quire_requests_received_total 5\n", "quire_requests_total{ending=\"finished\"} 2\n",
                           "{ending=\"cancelled\"} 1\n", "{ending=\"expired\"} 1\n", "{ending=\"rejected\"} 1\n",
                           "{ending=\"failed\"} 0\n", "finished_reason=\"stop\"} 1\n",
                           "finished_reason=\"length\"} 1\n", "finished_reason=\"abort\"} 2\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_waiting{model_name=\"tiny \\\"one\\\"\",engine=\"0\"} 0\n"));
}

TEST(MetricsTest, LatenciesAreThoseOfFinishedRequests) {
  Metrics metrics(Info());
  metrics.Ended(FinishedRequest("stop"));
  metrics.FirstToken(absl::Milliseconds(400));
  metrics.NextToken(absl::Milliseconds(300));
  const std::string text = metrics.Text(EngineSnapshot());
  const std::string labels = "{model_name=\"tiny \\\"one\\\"\",engine=\"0\"";
  EXPECT_THAT(text, HasSubstr("vllm:e2e_request_latency_seconds_sum" + labels + "} 1\n"));
  EXPECT_THAT(text, HasSubstr("vllm:request_queue_time_seconds_sum" + labels + "} 0.1\n"));
  EXPECT_THAT(text, HasSubstr("vllm:time_to_first_token_seconds_bucket" + labels + ",le=\"0.25\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("vllm:time_to_first_token_seconds_bucket" + labels + ",le=\"0.5\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("vllm:time_to_first_token_seconds_bucket" + labels + ",le=\"2560\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("vllm:inter_token_latency_seconds_count" + labels + "} 1\n"));
  EXPECT_THAT(text, HasSubstr("vllm:request_prompt_tokens_bucket" + labels + ",le=\"50\"} 1\n"));
  EXPECT_THAT(text,
              Not(HasSubstr("vllm:request_prompt_tokens_bucket" + labels + ",le=\"100\"}")));  // over max_model_len
}

TEST(MetricsTest, TenantsHaveTheirSharesAndAreBoundedInNumber) {
  Metrics metrics(Info());
  RequestRecord record = FinishedRequest("stop");
  record.tenant = "blue";
  metrics.Ended(record);
  metrics.Ended(record);
  for (int i = 0; i < 1000; ++i) {
    record.tenant = "made-up-" + std::to_string(i);
    metrics.Ended(record);
  }
  const std::string text = metrics.Text(EngineSnapshot());
  EXPECT_THAT(text, HasSubstr("quire_tenant_requests_total{tenant=\"blue\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("quire_tenant_tokens_total{tenant=\"blue\",kind=\"prompt\"} 12\n"));
  EXPECT_THAT(text, HasSubstr("quire_tenant_tokens_total{tenant=\"blue\",kind=\"completion\"} 6\n"));
  EXPECT_THAT(text, HasSubstr("quire_tenant_requests_total{tenant=\"other\"} 937\n"));
  EXPECT_THAT(text, Not(HasSubstr("made-up-500")));
}

}  // namespace
}  // namespace quire
