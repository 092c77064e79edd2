// RequestRecord: one request that is over, as metrics, the log and spans tell of it.

#ifndef QUIRE_SERVER_REQUEST_RECORD_H_
#define QUIRE_SERVER_REQUEST_RECORD_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "kernels/sampling/sampling.h"
#include "server/trace_context.h"

namespace quire {

// How a received request ended. received = finished + cancelled + expired + rejected + failed once none is under way
// (law 3).
enum class RequestEnding { kFinished, kCancelled, kExpired, kRejected, kFailed };

// What is known of a call before its request is looked at.
struct CallInfo {
  absl::string_view rpc_service;  // a literal: the gRPC service whose Generate was called
  TraceContext trace;
  absl::Time arrival;
};

struct RequestRecord {
  CallInfo call;
  std::string request_id;
  std::string tenant;  // on whose account; may be empty
  RequestEnding ending = RequestEnding::kFinished;
  std::string reason;   // "stop", "length", or the ending
  absl::Status status;  // what the client was told
  SamplingParams sampling;
  uint32_t prompt_tokens = 0;
  uint32_t completion_tokens = 0;
  uint32_t cached_tokens = 0;
  uint32_t max_tokens = 0;  // 0: it was refused before this was known
  uint32_t num_outputs = 1;
  // From call.arrival on. queued + prefill + decode = total; a phase that was not reached is zero.
  absl::Duration queued, prefill, decode, total;
};

}  // namespace quire

#endif  // QUIRE_SERVER_REQUEST_RECORD_H_
