#include "client/load/server_metrics.h"

#include <gtest/gtest.h>

#include <atomic>

#include "absl/strings/str_cat.h"
#include "tests/fake_http_server.h"

namespace quire::client {
namespace {

TEST(ReadMetrics, KnowsTheNamesOfSeveralServers) {
  std::map<std::string, double> counters;
  MetricPoint point = ReadMetrics(
      "vllm:num_requests_running{engine=\"0\"} 3\nvllm:num_requests_running{engine=\"1\"} 4\n"
      "vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.5\n"
      "vllm:num_requests_waiting 2\nvllm:generation_tokens_total 70\n",
      counters);
  EXPECT_EQ(point.running, 7) << "engines add up";
  EXPECT_EQ(point.waiting, 2);
  EXPECT_EQ(point.kv_usage, 0.5) << "the fullest";
  EXPECT_EQ(counters["generation_tokens"], 70);
  point = ReadMetrics("llamacpp:requests_processing 1\nllamacpp:tokens_predicted_total 9\n", counters);
  EXPECT_EQ(point.running, 1);
  EXPECT_EQ(point.waiting, std::nullopt);
  EXPECT_EQ(counters["generation_tokens"], 9);
  point = ReadMetrics("sglang:num_running_reqs 5\nsglang:num_queue_reqs 6\nsglang:token_usage 0.1\n", counters);
  EXPECT_EQ(point.running, 5);
  EXPECT_EQ(point.waiting, 6);
  EXPECT_EQ(point.kv_usage, 0.1);
}

TEST(MetricsReader, ReadsBeforeAndBehindTheRunAndCountsTheGrowth) {
  std::atomic<int> reads{0};
  FakeHttpServer server([&](const FakeHttpServer::Request&, FakeHttpServer::Reply& reply) {
    reply.Full(200, "text/plain", absl::StrCat("vllm:generation_tokens_total ", 100 + 10 * reads++, "\n"));
  });
  MetricsReader reader(server.url() + "/metrics", /*interval_s=*/3600);
  EXPECT_TRUE(reader.latest().has_value());
  const ServerMetrics metrics = reader.Stop();
  EXPECT_EQ(metrics.points.size(), 2u);
  EXPECT_EQ(metrics.counters.at("generation_tokens"), 10);
  EXPECT_EQ(metrics.failed_reads, 0u);
}

TEST(MetricsReader, CountsFailedReadsAndSaysWhy) {
  MetricsReader reader("127.0.0.1:1", 3600);
  EXPECT_FALSE(reader.latest().has_value());
  const ServerMetrics metrics = reader.Stop();
  EXPECT_EQ(metrics.failed_reads, 2u);
  EXPECT_NE(metrics.error.find("http://127.0.0.1:1/metrics"), std::string::npos) << metrics.error;
}

}  // namespace
}  // namespace quire::client
