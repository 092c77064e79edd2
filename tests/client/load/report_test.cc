#include "client/load/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quire::client {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Sent `late_s` after its time, first token 0.1 s after that time, three more tokens 0.2 s apart, end with the last
// one.
RequestResult Completed(double intended_s, double late_s = 0) {
  RequestResult request;
  request.request_id = "r";
  request.intended_s = request.due_s = intended_s;
  request.sent_s = intended_s + late_s;
  request.first_token_s = intended_s + 0.1;
  request.itls_s = {0.2f, 0.2f, 0.2f};
  request.last_token_s = request.end_s = intended_s + 0.7;
  request.prompt_tokens = 10;
  request.output_tokens = 4;
  request.first_tokens = 1;
  request.cached_tokens = 2;
  request.finish_reason = "LENGTH";
  request.text = "abcd";
  return request;
}

RequestResult Failed(double sent_s) {
  RequestResult request;
  request.intended_s = request.due_s = request.sent_s = sent_s;
  request.end_s = sent_s + 0.05;
  request.prompt_tokens = 10;
  request.grpc_code = "RESOURCE_EXHAUSTED";
  request.error = "RESOURCE_EXHAUSTED: queue is full";
  request.retry_after_ms = 250;
  return request;
}

RunResult Example() {
  RunResult run;
  run.requests = {Completed(0), Completed(0.5, 0.02), Failed(0.6)};
  run.duration_s = 2;
  run.cpu_cores = 0.25;
  return run;
}

LoadOptions Options() {
  LoadOptions options;
  options.num_prompts = 3;
  options.max_concurrency = 4;
  return options;
}

TEST(Report, CountsCompletedRequestsAndKeepsFailuresApart) {
  const Report report = MakeReport(Options(), Example(), "tales", "20240131-235959");
  EXPECT_EQ(report.completed, 2u);
  EXPECT_EQ(report.failed, 1u);
  EXPECT_EQ(report.total_input_tokens, 20u);
  EXPECT_EQ(report.total_output_tokens, 8u);
  EXPECT_EQ(report.total_cached_tokens, 4u);
  EXPECT_EQ(report.max_concurrent_requests, 3u);
  // The first second has the tokens at 0.1, 0.3, 0.5, 0.7 and at 0.6, 0.8; the last two came at 1.0 and 1.2.
  EXPECT_EQ(report.max_output_tokens_per_s, 6);
}

TEST(Report, LatenciesCountFromTheIntendedTime) {
  const Report report = MakeReport(Options(), Example(), "tales", "");
  ASSERT_EQ(report.latencies.size(), 4u);
  EXPECT_NEAR(*report.latencies[0].samples_ms.Mean(), 100, 1e-6);  // ttft
  EXPECT_NEAR(*report.latencies[1].samples_ms.Mean(), 200, 1e-3);  // tpot: (700 - 100) / 3
  EXPECT_NEAR(*report.latencies[2].samples_ms.Mean(), 200, 1e-3);  // itl
  EXPECT_EQ(report.latencies[2].samples_ms.size(), 6u);
  EXPECT_NEAR(*report.latencies[3].samples_ms.Mean(), 700, 1e-6);  // e2el
  EXPECT_NEAR(*report.ttft_from_send_ms.Percentile(50), 80, 1e-6);
  EXPECT_NEAR(*report.scheduling_lag_ms.Percentile(100), 20, 1e-6);
}

TEST(Report, GoodputCountsRequestsThatMeetAllObjectives) {
  LoadOptions options = Options();
  EXPECT_EQ(MakeReport(options, Example(), "", "").request_goodput, std::nullopt);
  options.goodput = {{"ttft", 150}, {"tpot", 250}, {"e2el", 800}};
  EXPECT_EQ(MakeReport(options, Example(), "", "").request_goodput, 1.0);  // two requests in two seconds
  options.goodput = {{"ttft", 150}, {"tpot", 150}};
  EXPECT_EQ(MakeReport(options, Example(), "", "").request_goodput, 0.0);
}

TEST(ReportJson, HasTheKeysOfVllmBenchServe) {
  const LoadOptions options = Options();
  const RunResult run = Example();
  const auto json = ReportJson(options, run, MakeReport(options, run, "tales", "20240131-235959"), /*detailed=*/true);
  for (const char* key : {"date", "backend", "model_id", "tokenizer_id", "num_prompts", "request_rate", "burstiness",
                          "max_concurrency", "duration", "completed", "failed", "total_input_tokens",
                          "total_output_tokens", "request_throughput", "request_goodput", "output_throughput",
                          "total_token_throughput", "max_output_tokens_per_s", "max_concurrent_requests"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  for (const char* metric : {"ttft", "tpot", "itl", "e2el"}) {
    for (const char* statistic : {"mean", "median", "std", "p99"}) {
      const std::string key = std::string(statistic) + "_" + metric + "_ms";
      EXPECT_TRUE(json.contains(key) && json[key].is_number()) << key;
    }
  }
  for (const char* key :
       {"input_lens", "output_lens", "ttfts", "itls", "start_times", "latencies", "generated_texts", "errors"}) {
    EXPECT_EQ(json[key].size(), 3u) << key;
  }
  EXPECT_EQ(json["request_rate"], "inf");
  EXPECT_EQ(json["request_throughput"], 1.0);
  EXPECT_EQ(json["output_throughput"], 4.0);
  EXPECT_EQ(json["total_token_throughput"], 14.0);
  EXPECT_EQ(json["errors"][2], "RESOURCE_EXHAUSTED: queue is full");
  EXPECT_EQ(json["output_lens"][2], 0);
}

TEST(ReportJson, HasNoDetailsUnlessAsked) {
  const LoadOptions options = Options();
  const RunResult run = Example();
  EXPECT_FALSE(ReportJson(options, run, MakeReport(options, run, "", ""), false).contains("ttfts"));
}

TEST(ReportJson, LeavesOutPercentilesThatTheSamplesDoNotSupport) {
  LoadOptions options = Options();
  options.metric_percentiles = {50, 99, 99.9};
  const RunResult run = Example();
  const auto json = ReportJson(options, run, MakeReport(options, run, "", ""), false);
  EXPECT_TRUE(json.contains("p50_ttft_ms"));
  EXPECT_FALSE(json.contains("p99.9_ttft_ms"));
  // p99 is part of the format: the largest sample, and said to be so.
  EXPECT_NEAR(json["p99_e2el_ms"].get<double>(), 700, 1e-6);
  EXPECT_THAT(json["unsupported_percentiles"].dump(), HasSubstr("p99_e2el_ms"));
}

TEST(RequestLines, AreOneObjectForEachRequest) {
  std::istringstream lines(RequestLines(Example()));
  std::vector<nlohmann::json> parsed;
  for (std::string line; std::getline(lines, line);) {
    parsed.push_back(nlohmann::json::parse(line));
  }
  ASSERT_EQ(parsed.size(), 3u);
  EXPECT_EQ(parsed[1]["scheduled_s"], 0.5);
  EXPECT_EQ(parsed[1]["sent_s"], 0.52);
  EXPECT_EQ(parsed[1]["itl_ms"].size(), 3u);
  EXPECT_EQ(parsed[2]["grpc_code"], "RESOURCE_EXHAUSTED");
  EXPECT_EQ(parsed[2]["retry_after_ms"], 250);
  EXPECT_TRUE(parsed[2]["first_token_s"].is_null());
}

TEST(ReportTable, ShowsWhatVllmShowsAndWhatFailed) {
  LoadOptions options = Options();
  options.percentile_metrics = {"ttft"};
  const RunResult run = Example();
  const std::string table = ReportTable(options, run, MakeReport(options, run, "tales", ""));
  EXPECT_THAT(table, HasSubstr("============ Serving Benchmark Result ============\n"
                               "Successful requests:                     2\n"
                               "Failed requests:                         1\n"
                               "Maximum request concurrency:             4\n"));
  EXPECT_THAT(table, HasSubstr("---------------Time to First Token----------------\n"
                               "Mean TTFT (ms):                          100.00\n"
                               "Median TTFT (ms):                        100.00\n"
                               "P50 TTFT (ms):                           100.00\n"));
  EXPECT_THAT(table, HasSubstr("P99 TTFT (ms):                           n/a (2 samples, needs 100)\n"));
  EXPECT_THAT(table, Not(HasSubstr("ITL (ms)")));
  EXPECT_THAT(table, HasSubstr("1 x RESOURCE_EXHAUSTED: queue is full"));
  EXPECT_THAT(table, HasSubstr("Warning: this client sent late"));
}

TEST(ReportTable, SurvivesARunInWhichNothingCompleted) {
  LoadOptions options = Options();
  RunResult run;
  run.requests = {Failed(0)};
  EXPECT_THAT(ReportTable(options, run, MakeReport(options, run, "", "")),
              HasSubstr("Mean TTFT (ms):                          n/a"));
  EXPECT_TRUE(ReportJson(options, run, MakeReport(options, run, "", ""), true)["mean_ttft_ms"].is_null());
}

TEST(ResultFilename, NamesLabelRateConcurrencyModelAndDate) {
  LoadOptions options = Options();
  Report report;
  report.model = "org/tales";
  report.date = "20240131-235959";
  EXPECT_EQ(ResultFilename(options, report), "grpc-infqps-concurrency4-tales-20240131-235959.json");
  options.max_concurrency.reset();
  options.arrivals.request_rate = 2.5;
  options.label = "base";
  EXPECT_EQ(ResultFilename(options, report), "base-2.5qps-tales-20240131-235959.json");
}

// The first tag of `html` that does not close what was opened last; empty if every one does.
std::string FirstBadTag(std::string html) {
  std::vector<std::string> open;
  html = html.substr(html.find("<html"));
  for (size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
    const std::string tag = html.substr(at + 1, html.find('>', at) - at - 1);
    const std::string name = tag.substr(tag[0] == '/' ? 1 : 0, tag.find(' ') - (tag[0] == '/' ? 1 : 0));
    if (tag.back() == '/') {
      continue;
    }
    if (tag[0] != '/') {
      open.push_back(name);
    } else if (open.empty() || open.back() != name) {
      return tag;
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : open.back();
}

TEST(ReportHtml, IsOneWellFormedPageThatLoadsNothing) {
  RunResult run = Example();
  run.requests[2].error = "INTERNAL: <script>alert(1)</script> & more";
  LoadOptions options = Options();
  options.metadata = {{"gpu", "<none>"}};
  const std::string html = ReportHtml(options, run, MakeReport(options, run, "tales", "20240131-235959"));
  EXPECT_EQ(FirstBadTag(html), "");
  EXPECT_THAT(html, HasSubstr("INTERNAL: &lt;script&gt;alert(1)&lt;/script&gt; &amp; more"));
  EXPECT_THAT(html, HasSubstr("&lt;none&gt;"));
  for (const char* absent : {"<script", "http:", "https:", "src=", "url(", "nan", "inf,"}) {
    EXPECT_THAT(html, Not(HasSubstr(absent))) << absent;
  }
}

TEST(ReportHtml, DrawsTheSweepAndTheServersMetrics) {
  LoadOptions options = Options();
  options.goodput = {{"ttft", 90}};
  options.sweep = SweepOptions{};
  RunResult run = Example();
  run.server = ServerMetrics{"http", {{0, 1, 0, 0.5}, {1, 2, std::nullopt, 0.25}}, 1, "", {{"generation_tokens", 8}}};
  Report report = MakeReport(options, run, "tales", "");
  SweepStage stage;
  stage.median_p99_ms.assign(4, {3.5, std::nullopt});
  stage.rate = 2;
  stage.holds = true;
  report.sweep = {stage, stage};
  report.sweep[1].rate = 4;
  report.sweep[1].holds = false;
  const std::string html = ReportHtml(options, run, report);
  EXPECT_EQ(FirstBadTag(html), "");
  EXPECT_THAT(html, HasSubstr("<b>2.00 requests/s</b> is the highest rate that holds."));
  EXPECT_THAT(html, HasSubstr("<td class=\"fails\">fails</td>"));
  EXPECT_THAT(html, HasSubstr("<span class=\"key s1\">waiting</span>"));
  EXPECT_THAT(html, Not(HasSubstr("nan")));
  const auto json = ReportJson(options, run, report, /*detailed=*/true);
  EXPECT_EQ(json["sweep_request_rate"], 2);
  EXPECT_EQ(json["server_metrics"]["running"]["max"], 2);
  EXPECT_EQ(json["server_metrics"]["generation_tokens"], 8);
  EXPECT_EQ(json["server_metrics"]["points"].size(), 2u);
  EXPECT_THAT(ReportMarkdown(options, run, report), HasSubstr("2.00 requests/s hold"));
}

TEST(ReportHtml, OfARunThatSentNothingIsWellFormedToo) {
  const std::string html = ReportHtml(Options(), {}, MakeReport(Options(), {}, "tales", ""));
  EXPECT_EQ(FirstBadTag(html), "");
  EXPECT_THAT(html, HasSubstr("no samples"));
}

TEST(ReportMarkdown, SumsUpInTables) {
  const std::string text = ReportMarkdown(Options(), Example(), MakeReport(Options(), Example(), "tales", "d"));
  EXPECT_THAT(text, HasSubstr("### tales, d\n\n2 completed, 1 failed in 2.00 s: 1.00 requests/s"));
  EXPECT_THAT(text, HasSubstr("| TTFT | 2 | 100.00 | 100.00 |"));
  EXPECT_THAT(text, HasSubstr("| 1 | RESOURCE_EXHAUSTED: queue is full |"));
}

}  // namespace
}  // namespace quire::client
