// TraceContext: where a call stands in a distributed trace (W3C Trace Context, Recommendation of 2021).
//
// Thread: functions of their arguments.

#ifndef QUIRE_SERVER_TRACE_CONTEXT_H_
#define QUIRE_SERVER_TRACE_CONTEXT_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace quire {

// Ids are lower-case hexadecimal digits, never all zero.
struct TraceContext {
  std::string trace_id;        // 32 digits; empty: the call belongs to no trace
  std::string parent_span_id;  // 16: the caller's; empty: the trace begins here
  std::string span_id;         // 16: of the call's own span; empty: it has none
  bool sampled = false;        // somebody records the trace
};

// The trace id, parent and flag of a traceparent, "00-<32 digits>-<16>-<2>". nullopt for what section 3.2 of the
// recommendation calls invalid: capitals, ids of zeros, version ff, anything after the flags of version 00. Of later
// versions the part that version 00 has is read.
std::optional<TraceContext> ParseTraceparent(absl::string_view value);

}  // namespace quire

#endif  // QUIRE_SERVER_TRACE_CONTEXT_H_
