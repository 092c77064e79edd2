#include "client/scrape.h"

#include <gtest/gtest.h>

namespace quire::client {
namespace {

constexpr char kPage[] =
    "# HELP vllm:num_requests_running Requests that run.\n"
    "# TYPE vllm:num_requests_running gauge\n"
    "vllm:num_requests_running{engine=\"0\",model_name=\"a \\\"b\\\", {c}\"} 3\n"
    "quire_kv_blocks{state=\"free\"} 10 1700000000\n"
    "quire_kv_blocks{state=\"held\"} 5\n"
    "up 1\n"
    "broken{state=\"free\n"
    "no value\n"
    "\n";

TEST(ParsePrometheus, ReadsSamplesWithAndWithoutLabels) {
  const std::vector<Sample> samples = ParsePrometheus(kPage);
  ASSERT_EQ(samples.size(), 4u);
  EXPECT_EQ(samples[0].name, "vllm:num_requests_running");
  EXPECT_EQ(samples[0].labels.at("model_name"), "a \"b\", {c}");
  EXPECT_EQ(samples[0].labels.at("engine"), "0");
  EXPECT_EQ(samples[0].value, 3);
  EXPECT_EQ(samples[1].value, 10) << "a timestamp is no value";
  EXPECT_EQ(samples[3].name, "up");
}

TEST(SumOf, AddsTheSeriesThatCarryTheLabels) {
  const std::vector<Sample> samples = ParsePrometheus(kPage);
  EXPECT_EQ(SumOf(samples, "quire_kv_blocks"), 15);
  EXPECT_EQ(SumOf(samples, "quire_kv_blocks", {{"state", "held"}}), 5);
  EXPECT_EQ(SumOf(samples, "quire_kv_blocks", {{"state", "cached"}}), std::nullopt);
  EXPECT_EQ(SumOf(samples, "absent"), std::nullopt);
}

TEST(HttpGet, SaysThatNobodyListens) { EXPECT_FALSE(HttpGet("127.0.0.1:1", "/metrics").ok()); }

}  // namespace
}  // namespace quire::client
