// What `quire status` makes of a metrics page.

#include "client/load_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace quire::client {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// A page on which `n` tells how far things have come.
LoadView Page(int n) {
  const std::string count = std::to_string(n), twice = std::to_string(2 * n);
  return LoadView(ParsePrometheus(
      "vllm:num_requests_running{engine=\"0\"} 3\nvllm:num_requests_waiting{engine=\"0\"} 1\n"
      "vllm:num_preemptions_total 0\nvllm:prompt_tokens_total " +
      count + "\nvllm:generation_tokens_total " + twice + "\nvllm:prefix_cache_queries_total " + twice +
      "\nvllm:prefix_cache_hits_total " + count +
      "\nquire_kv_blocks{state=\"free\"} 50\nquire_kv_blocks{state=\"held\"} 25\nquire_kv_blocks{state=\"cached\"} 25\n"
      "vllm:time_to_first_token_seconds_bucket{le=\"0.1\"} " +
      count + "\nvllm:time_to_first_token_seconds_bucket{le=\"0.5\"} " + twice +
      "\nvllm:time_to_first_token_seconds_bucket{le=\"+Inf\"} " + twice +
      "\nquire_tenant_requests_total{tenant=\"blue\"} 2\nquire_tenant_tokens_total{tenant=\"blue\",kind=\"prompt\"} " +
      count + "\nquire_tenant_tokens_total{tenant=\"blue\",kind=\"completion\"} " + twice +
      "\nquire_tenant_tokens_total{tenant=\"\",kind=\"completion\"} " + count + "\n"));
}

TEST(LoadView, ShowsTheLoadAtAGlance) {
  const std::string screen = Page(100).Screen(nullptr, 1);
  EXPECT_THAT(screen, HasSubstr("load     3 running, 1 waiting, 0 preemptions\n"));
  EXPECT_THAT(screen, HasSubstr("cache    [##########++++++++++                    ] 25.0%: 25 blocks held (#), 25 "
                                "cached (+), 50 free\n"));
  EXPECT_THAT(screen, HasSubstr("prefix   50.0% of 200 prompt tokens found in the cache\n"));
  EXPECT_THAT(screen, HasSubstr("tokens   100 of prompts, 200 generated\n"));
  EXPECT_THAT(screen, HasSubstr("latency  first token 100 / 492 ms"));
  EXPECT_THAT(screen, AllOf(HasSubstr("tenants  blue                      75.0% of"), HasSubstr("(none)")));
}

TEST(LoadView, ShowsWhatCameBetweenTwoLooks) {
  const LoadView before = Page(100);
  const std::string screen = Page(150).Screen(&before, 2);
  EXPECT_THAT(screen, HasSubstr("prefix   50.0% of 100 prompt tokens"));
  EXPECT_THAT(screen, HasSubstr("tokens   150 of prompts (25/s), 300 generated (50/s)\n"));
  EXPECT_THAT(screen, HasSubstr(" 75.0% of the tokens of ended requests, 75/s\n"));
  EXPECT_THAT(before.Screen(&before, 1), AllOf(Not(HasSubstr("latency")), Not(HasSubstr("tenants"))));
}

TEST(LoadView, JsonHasTotalsAndNullForWhatIsMissing) {
  const auto json = Page(100).ToJson();
  EXPECT_EQ(json["kv_blocks_held"], 25);
  EXPECT_EQ(json["p50_ttft_ms"], 100.0);
  EXPECT_EQ(json["tenants"]["blue"]["completion_tokens"], 200);
  EXPECT_TRUE(json["kv_cache_usage"].is_null());
  EXPECT_TRUE(json["p99_itl_ms"].is_null());
}

TEST(LoadView, AQuantileBeyondTheLastBoundIsThatBound) {
  const LoadView slow(
      ParsePrometheus("vllm:time_to_first_token_seconds_bucket{le=\"2560\"} "
                      "0\nvllm:time_to_first_token_seconds_bucket{le=\"+Inf\"} 4\n"));
  EXPECT_EQ(slow.ToJson()["p50_ttft_ms"], 2560000.0);
}

}  // namespace
}  // namespace quire::client
