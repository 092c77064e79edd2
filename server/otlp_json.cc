#include "server/otlp_json.h"

#include <unistd.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace quire {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kServer = 2;     // SPAN_KIND_SERVER
constexpr int kError = 2;      // STATUS_CODE_ERROR
constexpr int kSampled = 0x1;  // SpanFlags: W3C's
constexpr int kKnowsIfRemote = 0x100, kIsRemote = 0x200;

// A list of attributes.
class Attributes {
 public:
  Attributes& Text(const char* key, absl::string_view value) { return Add(key, "stringValue", std::string(value)); }
  Attributes& Integer(const char* key, uint64_t value) { return Add(key, "intValue", absl::StrCat(value)); }
  Attributes& Number(const char* key, double value) { return Add(key, "doubleValue", value); }
  // The decimal number that the client wrote, rather than the float nearest to it.
  Attributes& Number(const char* key, float value) {
    double number = value;
    if (!absl::SimpleAtod(absl::StrCat(value), &number)) number = value;
    return Number(key, number);
  }
  Attributes& List(const char* key, absl::string_view only) {
    return Add(key, "arrayValue", {{"values", Json::array({{{"stringValue", std::string(only)}}})}});
  }
  Json Take() { return std::move(list_); }

 private:
  Attributes& Add(const char* key, const char* type, Json value) {
    list_.push_back({{"key", key}, {"value", {{type, std::move(value)}}}});
    return *this;
  }
  Json list_ = Json::array();
};

std::string UnixNanos(absl::Time time) { return absl::StrCat(absl::ToUnixNanos(time)); }

// Which codes are the server's fault, by the conventions for spans of gRPC servers.
bool IsServerError(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDataLoss:
      return true;
    default:
      return false;
  }
}

Json AttributesOf(const RequestRecord& record, absl::string_view model_name) {
  Attributes a;
  a.Text("gen_ai.operation.name", "text_completion")
      .Text("gen_ai.provider.name", "quire")
      .Text("gen_ai.request.model", model_name)
      .Text("rpc.system", "grpc")
      .Text("rpc.service", record.call.rpc_service)
      .Text("rpc.method", "Generate")
      .Integer("rpc.grpc.status_code", static_cast<uint64_t>(record.status.code()));
  if (!record.request_id.empty()) a.Text("gen_ai.response.id", record.request_id);
  if (!record.tenant.empty()) a.Text("quire.tenant", record.tenant);
  if (!record.status.ok()) a.Text("error.type", absl::StatusCodeToString(record.status.code()));
  if (record.max_tokens == 0) return a.Take();
  const SamplingParams& sampling = record.sampling;
  a.Text("gen_ai.response.model", model_name)
      .Integer("gen_ai.request.max_tokens", record.max_tokens)
      .Integer("gen_ai.request.choice.count", record.num_outputs)
      .Number("gen_ai.request.temperature", sampling.temperature)
      .Integer("gen_ai.request.top_k", sampling.top_k)
      .Number("gen_ai.request.top_p", sampling.top_p)
      .Number("gen_ai.request.frequency_penalty", sampling.frequency_penalty)
      .Number("gen_ai.request.presence_penalty", sampling.presence_penalty)
      .Text("quire.seed",
            absl::StrCat(sampling.seed))  // 64 bits without a sign: more than an attribute's integer holds
      .List("gen_ai.response.finish_reasons", record.reason)
      .Integer("gen_ai.usage.input_tokens", record.prompt_tokens)
      .Integer("gen_ai.usage.output_tokens", record.completion_tokens)
      .Integer("gen_ai.usage.cache_read.input_tokens", record.cached_tokens)
      .Number("gen_ai.latency.time_in_queue", absl::ToDoubleSeconds(record.queued))
      .Number("gen_ai.latency.time_in_model_prefill", absl::ToDoubleSeconds(record.prefill))
      .Number("gen_ai.latency.time_in_model_decode", absl::ToDoubleSeconds(record.decode))
      .Number("gen_ai.latency.e2e", absl::ToDoubleSeconds(record.total));
  if (record.completion_tokens > 0) {
    a.Number("gen_ai.latency.time_to_first_token", absl::ToDoubleSeconds(record.queued + record.prefill));
  }
  return a.Take();
}

Json EventsOf(const RequestRecord& record) {
  Json events = Json::array();
  const auto add = [&](const char* name, absl::Duration since_arrival) {
    events.push_back({{"timeUnixNano", UnixNanos(record.call.arrival + since_arrival)}, {"name", name}});
  };
  if (record.queued < record.total || record.completion_tokens > 0) add("scheduled", record.queued);
  if (record.completion_tokens > 0) add("first token", record.queued + record.prefill);
  return events;
}

Json SpanOf(const RequestRecord& record, absl::string_view model_name) {
  const TraceContext& trace = record.call.trace;
  const bool has_parent = !trace.parent_span_id.empty();
  Json span = {{"traceId", trace.trace_id}, {"spanId", trace.span_id}};
  if (has_parent) span["parentSpanId"] = trace.parent_span_id;
  span["flags"] = kSampled | kKnowsIfRemote | (has_parent ? kIsRemote : 0);
  span["name"] = absl::StrCat("text_completion ", model_name);
  span["kind"] = kServer;
  span["startTimeUnixNano"] = UnixNanos(record.call.arrival);
  span["endTimeUnixNano"] = UnixNanos(record.call.arrival + record.total);
  span["attributes"] = AttributesOf(record, model_name);
  if (Json events = EventsOf(record); !events.empty()) span["events"] = std::move(events);
  if (IsServerError(record.status.code())) {
    span["status"] = {{"code", kError}, {"message", std::string(record.status.message())}};
  }
  return span;
}

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof name - 1) == 0 ? name : "";
}

}  // namespace

std::string OtlpTraces(absl::Span<const RequestRecord> records, absl::string_view model_name) {
  Json spans = Json::array();
  for (const RequestRecord& record : records) spans.push_back(SpanOf(record, model_name));
  Attributes resource;
  resource.Text("service.name", "quired")
      .Text("service.version", QUIRE_VERSION)
      .Text("service.instance.id", HostName());  // in Kubernetes the pod's name
  const Json body = {
      {"resourceSpans",
       Json::array({{{"resource", {{"attributes", resource.Take()}}},
                     {"scopeSpans", Json::array({{{"scope", {{"name", "quire"}, {"version", QUIRE_VERSION}}},
                                                  {"spans", std::move(spans)}}})}}})}};
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace quire
