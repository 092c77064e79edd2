#include "client/load/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cmath>

namespace quire::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

// The options that `flags` give; throws CLI::ParseError.
LoadOptions Parse(const std::string& flags) {
  LoadOptions options;
  CLI::App app;
  AddLoadFlags(app, options);
  app.parse(flags);
  return options;
}

std::string Refusal(const std::string& flags) {
  try {
    Parse(flags);
  } catch (const CLI::ParseError& error) {
    return error.what();
  }
  return "";
}

TEST(LoadFlags, AreThoseOfVllmBenchServe) {
  const LoadOptions options = Parse(
      "--backend grpc --dataset-name random --random-input-len 32 --random-output-len 16 --random-range-ratio 0.5 "
      "--random-prefix-len 8 --ignore-eos --num-prompts 24 --num-warmups 2 --seed 3 --request-rate 20 --burstiness 0.5 "
      "--max-concurrency 4 --percentile-metrics ttft,itl --metric-percentiles 50,99.9 --goodput ttft:200 e2el:5000 "
      "--metadata gpu=H200 note=a=b --temperature 0.7 --timeout 5s");
  EXPECT_EQ(options.dataset.input_len, 32u);
  EXPECT_EQ(options.dataset.output_len, 16u);
  EXPECT_EQ(options.dataset.range_ratio, 0.5);
  EXPECT_EQ(options.dataset.prefix_len, 8u);
  EXPECT_EQ(options.num_prompts, 24u);
  EXPECT_EQ(options.arrivals.request_rate, 20);
  EXPECT_EQ(options.arrivals.burstiness, 0.5);
  EXPECT_EQ(options.max_concurrency, 4u);
  EXPECT_THAT(options.percentile_metrics, ElementsAre("ttft", "itl"));
  EXPECT_THAT(options.metric_percentiles, ElementsAre(50, 99.9));
  EXPECT_THAT(options.goodput, ElementsAre(Pair("ttft", 200), Pair("e2el", 5000)));
  EXPECT_THAT(options.metadata, ElementsAre(Pair("gpu", "H200"), Pair("note", "a=b")));
  EXPECT_FLOAT_EQ(options.request.sampling().temperature(), 0.7);
  EXPECT_EQ(options.connection.timeout, absl::Seconds(5));
}

TEST(LoadFlags, DefaultToAGreedyBurst) {
  const LoadOptions options = Parse("");
  EXPECT_TRUE(std::isinf(options.arrivals.request_rate));
  EXPECT_TRUE(std::isinf(Parse("--request-rate inf").arrivals.request_rate));
  EXPECT_TRUE(std::isinf(Parse("--burstiness inf").arrivals.burstiness));
  EXPECT_FALSE(options.max_concurrency.has_value());
  EXPECT_EQ(options.request.sampling().temperature(), 0);
}

TEST(LoadFlags, AreRefusedByNameWhenNotBuilt) {
  for (const char* flag : {"--plot-timeline", "--load-schedule"}) {
    EXPECT_THAT(Refusal(std::string(flag) + " x"), HasSubstr(flag));
  }
  EXPECT_THAT(Refusal("--backend triton"), HasSubstr("'triton'; allowed: grpc, vllm-grpc, openai, openai-chat"));
  EXPECT_THAT(Refusal("--header X"), HasSubstr("'X'; allowed: NAME=VALUE"));
  EXPECT_THAT(Refusal("--dataset-name sonnet"),
              HasSubstr("'sonnet'; allowed: random, corpus, custom, sharegpt, trace"));
  EXPECT_THAT(Refusal("--percentile-metrics ttft,speed"), HasSubstr("'speed'"));
  EXPECT_THAT(Refusal("--metric-percentiles 100"), HasSubstr("'100'"));
  EXPECT_THAT(Refusal("--goodput itl:5"), HasSubstr("'itl:5'"));
  EXPECT_THAT(Refusal("--num-prompts 0"), HasSubstr("--num-prompts"));
  EXPECT_THAT(Refusal("--burstiness 0"), HasSubstr("--burstiness"));
  EXPECT_THAT(Refusal("--request-cancellation-rate 101"), HasSubstr("--request-cancellation-rate"));
  for (const char* mix : {"a", "a:", ":1", "a:0", "a:-1", "a:inf", "a:1,"}) {
    EXPECT_THAT(Refusal(std::string("--tenant-mix ") + mix), HasSubstr("allowed: NAME:WEIGHT")) << mix;
  }
  EXPECT_THAT(Refusal("--deadline-mix soon:1"), HasSubstr("soon"));
  EXPECT_THAT(Refusal("--assert speed"), HasSubstr("'speed'; allowed: KEY<NUMBER"));
  EXPECT_THAT(Refusal("--ramp-up-strategy steep"), HasSubstr("'steep'; allowed: linear, exponential"));
  EXPECT_THAT(Refusal("--ramp-up-strategy linear --ramp-up-start-rps 1"), HasSubstr("--ramp-up-end-rps"));
}

TEST(LoadFlags, AreRefusedInAFewWordsWhenOutOfRange) {
  for (const std::string flag : {"--num-prompts", "--max-concurrency", "--random-input-len", "--trace-speedup"}) {
    for (const std::string value : {"0", "-1", "x", "inf", "nan"}) {
      EXPECT_EQ(Refusal(flag + " " + value), flag + ": '" + value + "'; allowed: a number above 0");
    }
  }
  EXPECT_EQ(Refusal("--ready-check-timeout-sec -1"),
            "--ready-check-timeout-sec: '-1'; allowed: a number above 0, or 0");
  EXPECT_EQ(Refusal("--ready-check-timeout-sec 0"), "");
}

TEST(LoadFlags, AreCheckedTogether) {
  EXPECT_TRUE(CheckLoadOptions(Parse("")).ok());
  EXPECT_THAT(CheckLoadOptions(Parse("--random-range-ratio 1")).message(), HasSubstr("--random-range-ratio 1;"));
  for (const char* rate : {"-1", "0", "nan"}) {
    EXPECT_THAT(CheckLoadOptions(Parse(std::string("--request-rate ") + rate)).message(), HasSubstr("--request-rate "))
        << rate;
  }
  EXPECT_THAT(CheckLoadOptions(Parse("--dataset-name corpus")).message(), HasSubstr("needs --dataset-path"));
  EXPECT_THAT(CheckLoadOptions(Parse("--dataset-path x")).message(), HasSubstr("takes no --dataset-path"));
  EXPECT_THAT(CheckLoadOptions(Parse("--save-detailed")).message(), HasSubstr("--save-result"));
  EXPECT_THAT(CheckLoadOptions(Parse("--append-result")).message(), HasSubstr("--save-result"));
  EXPECT_THAT(CheckLoadOptions(Parse("--save-result --append-result --save-detailed")).message(),
              HasSubstr("one line"));
  EXPECT_THAT(CheckLoadOptions(Parse("--tenant-mix a:1 --tenant b")).message(), HasSubstr("takes no --tenant"));
  EXPECT_THAT(CheckLoadOptions(Parse("--deadline-mix 1s:1 --timeout 2s")).message(), HasSubstr("takes no --timeout"));
  const std::string ramp = "--ramp-up-strategy exponential --ramp-up-start-rps 1 --ramp-up-end-rps 9";
  EXPECT_TRUE(CheckLoadOptions(Parse(ramp)).ok());
  EXPECT_TRUE(Parse(ramp).arrivals.ramp->exponential);
  EXPECT_EQ(Parse(ramp).arrivals.ramp->end_rps, 9);
  EXPECT_THAT(CheckLoadOptions(Parse(ramp + " --request-rate 2")).message(), HasSubstr("takes no --request-rate"));
}

TEST(LoadFlags, OfASweepNeedObjectivesAndSetTheRateThemselves) {
  EXPECT_TRUE(CheckLoadOptions(Parse("--profile sweep --goodput ttft:200 --sweep-attainment 0.9")).ok());
  EXPECT_EQ(Parse("--profile sweep --sweep-attainment 0.9").sweep->attainment, 0.9);
  EXPECT_THAT(CheckLoadOptions(Parse("--profile sweep")).message(), HasSubstr("needs --goodput"));
  EXPECT_THAT(Refusal("--profile poisson"), HasSubstr("'poisson'; allowed: sweep"));
  EXPECT_THAT(Refusal("--sweep-start-rps 2"), HasSubstr("--profile"));
  for (const char* flag : {"--num-prompts 3", "--request-rate 2", "--replay-check 1", "--max-seconds 3"}) {
    EXPECT_NE(Refusal(std::string("--profile sweep --goodput ttft:1 ") + flag), "") << flag;
  }
}

TEST(LoadFlags, OfAnotherBackendAreRefused) {
  EXPECT_TRUE(CheckLoadOptions(Parse("--backend openai --base-url http://a:1 --priority 3 --cache-salt s")).ok());
  EXPECT_THAT(CheckLoadOptions(Parse("--base-url http://a:1")).message(), HasSubstr("not for --backend grpc"));
  for (const char* flag : {"--target a:1", "--connections 2", "--tls", "--tenant a",
                           "--deadline-mix 1s:1 --tenant-mix a:1", "--time-limit 1s", "--bypass-prefix-cache"}) {
    EXPECT_THAT(CheckLoadOptions(Parse(std::string("--backend openai ") + flag)).message(),
                HasSubstr("not for --backend openai"))
        << flag;
  }
  LoadOptions options = Parse("--backend openai");
  options.extra_body = "[1]";
  EXPECT_THAT(CheckLoadOptions(options).message(), HasSubstr("allowed: a JSON object"));
}

TEST(ParseObjective, IsAMetricAndMilliseconds) {
  EXPECT_THAT(*ParseObjective("tpot:50.5"), Pair("tpot", 50.5));
  for (const char* text : {"", "ttft", "ttft:", "ttft:x", "ttft:-1", "ttft:1:2", "itl:1"}) {
    EXPECT_FALSE(ParseObjective(text).ok()) << text;
  }
}

}  // namespace
}  // namespace quire::client
