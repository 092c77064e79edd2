// Spans as a collector gets them, and what becomes of them where it is slow, away or unwilling.

#include "server/span_exporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "absl/time/clock.h"
#include "server/flag_values.h"
#include "tests/server/finished_request.h"
#include "tests/server/http_collector.h"

namespace quire {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr char kTrace[] = "0af7651916cd43dd8448eb211c80319c";
constexpr char kParent[] = "b7ad6b7169203331";

SpanExporterOptions Options(const HttpCollector& collector) {
  SpanExporterOptions options;
  options.url = collector.url();
  options.model_name = "tiny";
  options.max_delay = absl::ZeroDuration();
  options.first_pause = absl::Milliseconds(1);
  options.farewell = absl::Minutes(1);  // a test that waits so long has failed
  return options;
}

TraceContext Sampled() { return *ParseTraceparent(std::string("00-") + kTrace + "-" + kParent + "-01"); }

RequestRecord Finished(const SpanExporter& exporter) {
  RequestRecord record = FinishedRequest();
  record.call = {"quire.v1.GenerationService", exporter.Begin(Sampled()), absl::FromUnixSeconds(1700000000)};
  record.request_id = "r-1";
  record.sampling.temperature = 0.7f;
  record.cached_tokens = 2;
  return record;
}

double Count(const Metrics& metrics, const std::string& name) {
  const std::string page = metrics.Text(EngineSnapshot());
  const size_t at = page.find("\n" + name + " ");
  EXPECT_NE(at, std::string::npos) << name;
  return std::stod(page.substr(at + 1 + name.size()));
}

Json SpansOf(const HttpCollector::Post& post) {
  return Json::parse(post.body)["resourceSpans"][0]["scopeSpans"][0]["spans"];
}

// The attributes of a span or a resource, by name.
Json AttributesOf(const Json& owner) {
  Json attributes;
  for (const Json& attribute : owner["attributes"]) {
    attributes[attribute["key"].get<std::string>()] = *attribute["value"].begin();
  }
  return attributes;
}

TEST(SpanExporter, ARequestBecomesOneSpanOfItsCallersTrace) {
  HttpCollector collector;
  Metrics metrics{Metrics::Info{}};
  SpanExporter exporter(Options(collector), metrics);
  exporter.Ended(Finished(exporter));
  const HttpCollector::Post post = collector.Await(1)[0];
  EXPECT_THAT(post.head, HasSubstr("POST /v1/traces HTTP/1.1\r\n"));
  EXPECT_THAT(post.head, HasSubstr("Content-Type: application/json\r\n"));
  const Json spans = SpansOf(post);
  ASSERT_EQ(spans.size(), 1u);
  const Json& span = spans[0];
  EXPECT_EQ(span["traceId"], kTrace);
  EXPECT_EQ(span["parentSpanId"], kParent);
  EXPECT_EQ(span["spanId"].get<std::string>().size(), 16u);
  EXPECT_NE(span["spanId"], kParent);
  EXPECT_EQ(span["name"], "text_completion tiny");
  EXPECT_EQ(span["kind"], 2);
  EXPECT_EQ(span["startTimeUnixNano"], "1700000000000000000");
  EXPECT_EQ(span["endTimeUnixNano"], "1700000001000000000");
  EXPECT_FALSE(span.contains("status"));
  EXPECT_EQ(span["events"], Json::parse(R"([{"timeUnixNano": "1700000000100000000", "name": "scheduled"},
                                            {"timeUnixNano": "1700000000400000000", "name": "first token"}])"));
  const Json attributes = AttributesOf(span);
  EXPECT_EQ(attributes["gen_ai.operation.name"], "text_completion");
  EXPECT_EQ(attributes["gen_ai.provider.name"], "quire");
  EXPECT_EQ(attributes["gen_ai.request.model"], "tiny");
  EXPECT_EQ(attributes["gen_ai.response.id"], "r-1");
  EXPECT_EQ(attributes["gen_ai.request.max_tokens"], "5");
  EXPECT_EQ(attributes["gen_ai.request.temperature"], 0.7);
  EXPECT_EQ(attributes["gen_ai.usage.input_tokens"], "6");
  EXPECT_EQ(attributes["gen_ai.usage.output_tokens"], "3");
  EXPECT_EQ(attributes["gen_ai.usage.cache_read.input_tokens"], "2");
  EXPECT_EQ(attributes["gen_ai.response.finish_reasons"], Json::parse(R"({"values": [{"stringValue": "stop"}]})"));
  EXPECT_EQ(attributes["gen_ai.latency.time_to_first_token"], 0.4);
  EXPECT_EQ(attributes["rpc.service"], "quire.v1.GenerationService");
  EXPECT_EQ(attributes["rpc.grpc.status_code"], "0");
  const Json resource = AttributesOf(Json::parse(post.body)["resourceSpans"][0]["resource"]);
  EXPECT_EQ(resource["service.name"], "quired");
  exporter.Shutdown();
  EXPECT_EQ(Count(metrics, "quire_spans_exported_total"), 1);
  EXPECT_EQ(Count(metrics, "quire_spans_dropped_total"), 0);
}

TEST(SpanExporter, AnErrorOfTheServerIsOneOfTheSpanAndAClientsIsNot) {
  HttpCollector collector;
  Metrics metrics{Metrics::Info{}};
  SpanExporter exporter(Options(collector), metrics);
  RequestRecord record;
  record.call = {"quire.v1.GenerationService", exporter.Begin(std::nullopt), absl::UnixEpoch()};
  record.status = absl::UnavailableError("the server is going down");
  exporter.Ended(record);
  Json span = SpansOf(collector.Await(1)[0])[0];
  EXPECT_FALSE(span.contains("parentSpanId"));
  EXPECT_FALSE(span.contains("events"));
  EXPECT_EQ(span["status"], Json::parse(R"({"code": 2, "message": "the server is going down"})"));
  EXPECT_EQ(AttributesOf(span)["error.type"], "UNAVAILABLE");
  record.status = absl::InvalidArgumentError("prompt is missing");
  exporter.Ended(record);
  span = SpansOf(collector.Await(2)[1])[0];
  EXPECT_FALSE(span.contains("status"));
  EXPECT_EQ(AttributesOf(span)["error.type"], "INVALID_ARGUMENT");
  EXPECT_EQ(AttributesOf(span)["rpc.grpc.status_code"], "3");
}

TEST(SpanExporter, TheCallersFlagDecidesAndChanceWhereThereIsNone) {
  HttpCollector collector;
  Metrics metrics{Metrics::Info{}};
  SpanExporterOptions options = Options(collector);
  options.sampling_ratio = 0.25;
  SpanExporter exporter(options, metrics);
  TraceContext unsampled = Sampled();
  unsampled.sampled = false;
  const TraceContext kept = exporter.Begin(unsampled);
  EXPECT_EQ(kept.trace_id, kTrace);
  EXPECT_FALSE(kept.sampled);
  EXPECT_TRUE(exporter.Begin(Sampled()).sampled);
  std::set<std::string> ids;
  int num_sampled = 0;
  for (int i = 0; i < 4000; ++i) {
    const TraceContext context = exporter.Begin(std::nullopt);
    EXPECT_EQ(context.trace_id.size(), 32u);
    EXPECT_EQ(context.sampled, !context.span_id.empty());
    ids.insert(context.trace_id);
    num_sampled += context.sampled;
  }
  EXPECT_EQ(ids.size(), 4000u);
  EXPECT_NEAR(num_sampled, 1000, 250);  // nine standard deviations
  RequestRecord record = Finished(exporter);
  record.call.trace = kept;
  exporter.Ended(record);
  exporter.Shutdown();
  EXPECT_EQ(Count(metrics, "quire_spans_exported_total"), 0);
}

TEST(SpanExporter, AFullQueueDropsSpansAndNobodyWaits) {
  HttpCollector collector;
  collector.Hold();
  Metrics metrics{Metrics::Info{}};
  SpanExporterOptions options = Options(collector);
  options.max_queued = 10;
  options.max_batch = 4;
  SpanExporter exporter(options, metrics);
  exporter.Ended(Finished(exporter));
  collector.Await(1);  // it is being sent, and is not answered
  for (int i = 0; i < 1000; ++i) exporter.Ended(Finished(exporter));
  EXPECT_EQ(Count(metrics, "quire_spans_dropped_total"), 990);
  collector.Release();
  exporter.Shutdown();
  EXPECT_EQ(Count(metrics, "quire_spans_exported_total"), 11);
  EXPECT_EQ(collector.Await(4).size(), 4u);  // 1, 4, 4, 2
}

TEST(SpanExporter, TriesAgainWhatMayBeTriedAgain) {
  HttpCollector collector;
  collector.Answer(503);
  collector.Answer(429);
  Metrics metrics{Metrics::Info{}};
  SpanExporter exporter(Options(collector), metrics);
  exporter.Ended(Finished(exporter));
  const auto posts = collector.Await(3);
  EXPECT_EQ(posts[0].body, posts[2].body);
  exporter.Shutdown();
  EXPECT_EQ(Count(metrics, "quire_spans_exported_total"), 1);
}

TEST(SpanExporter, DropsWhatTheCollectorRefuses) {
  HttpCollector collector;
  collector.Answer(400);
  Metrics metrics{Metrics::Info{}};
  SpanExporter exporter(Options(collector), metrics);
  exporter.Ended(Finished(exporter));
  collector.Await(1);
  collector.Answer(200, R"({"partialSuccess": {"rejectedSpans": "1", "errorMessage": "no"}})");
  exporter.Ended(Finished(exporter));
  collector.Await(2);
  exporter.Shutdown();
  EXPECT_EQ(Count(metrics, "quire_spans_dropped_total"), 2);
  EXPECT_EQ(Count(metrics, "quire_spans_exported_total"), 0);
}

TEST(SpanExporter, ACollectorThatIsAwayOrSilentDoesNotHoldTheShutdown) {
  Metrics metrics{Metrics::Info{}};
  HttpCollector silent;
  silent.Hold();
  SpanExporterOptions options = Options(silent);
  options.farewell = absl::Milliseconds(10);
  {
    SpanExporter exporter(options, metrics);
    exporter.Ended(Finished(exporter));
    silent.Await(1);
  }
  EXPECT_EQ(Count(metrics, "quire_spans_dropped_total"), 1);
  options.url = "http://127.0.0.1:1/v1/traces";
  options.first_pause = absl::Hours(1);
  {
    SpanExporter exporter(options, metrics);
    exporter.Ended(Finished(exporter));
  }
  EXPECT_EQ(Count(metrics, "quire_spans_dropped_total"), 2);
}

TEST(SpanExporter, AnEndpointIsAnHttpUrl) {
  EXPECT_EQ(ParseHttpUrl("http://localhost:4318", "/v1/traces").value(), "http://localhost:4318/v1/traces");
  EXPECT_EQ(ParseHttpUrl("https://[::1]:4318/", "/v1/traces").value(), "https://[::1]:4318/v1/traces");
  EXPECT_EQ(ParseHttpUrl("http://host/custom/path", "/v1/traces").value(), "http://host/custom/path");
  for (const char* text : {"", "localhost:4318", "grpc://localhost:4317", "ftp://x", "http://", "http://host:99999"}) {
    EXPECT_THAT(std::string(ParseHttpUrl(text, "/v1/traces").status().message()),
                HasSubstr("is not a URL such as http://localhost:4318"))
        << text;
  }
}

}  // namespace
}  // namespace quire
