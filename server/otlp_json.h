// The body of an OTLP/HTTP request for traces, in JSON (OTLP 1.x: ids in hexadecimal, 64-bit integers as strings).
//
// A request becomes one span of kind SERVER, named and described by OpenTelemetry's conventions for generative AI and
// for gRPC; vLLM's names for latencies stand beside them. When its first chunk was scheduled and when its first token
// came are events. Prompts, outputs and stop strings are not in it.
//
// Thread: a function of its arguments.

#ifndef QUIRE_SERVER_OTLP_JSON_H_
#define QUIRE_SERVER_OTLP_JSON_H_

#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/request_record.h"

namespace quire {

// REQUIRES: each record has a trace id and a span id.
std::string OtlpTraces(absl::Span<const RequestRecord> records, absl::string_view model_name);

}  // namespace quire

#endif  // QUIRE_SERVER_OTLP_JSON_H_
