// What a load test saw. Plain values: the runner fills them, the report reads them.

#ifndef QUIRE_CLIENT_LOAD_RESULT_H_
#define QUIRE_CLIENT_LOAD_RESULT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/load/server_metrics.h"

namespace quire::client {

// One request. Times are seconds since the run began.
struct RequestResult {
  std::string request_id;
  std::string tenant;  // that was asked for
  // When it should have been sent: open loop, its arrival; closed loop, when a place became free.
  double intended_s = 0;
  // The later of intended_s and the moment when --max-concurrency let it go; sent_s - due_s is this client's own
  // lateness.
  double due_s = 0;
  double sent_s = 0;
  // Of the first and last message with tokens; meaningful if output_tokens > 0.
  double first_token_s = 0;
  double last_token_s = 0;
  double end_s = 0;  // the RPC's status
  // As the server's usage says; else the ids that were sent, or 0 if it was text.
  uint32_t prompt_tokens = 0;
  // Ids that came. Over HTTP, which shows text alone: the server's usage.completion_tokens; else the messages.
  uint32_t output_tokens = 0;
  uint32_t first_tokens = 0;  // of the first message
  uint32_t num_messages = 0;  // with output
  uint32_t cached_tokens = 0;
  bool has_usage = false;  // the server said what it counted
  // Seconds before each token that came after the first message; a message of k tokens counts as k equal parts of its
  // gap. Over HTTP a message is one token unless it says more.
  std::vector<float> itls_s;
  std::string finish_reason;        // "STOP", "LENGTH", ...
  std::string text;                 // if asked for
  std::vector<uint32_t> token_ids;  // if asked for
  std::string grpc_code;            // "OK", "UNAVAILABLE"; empty over HTTP
  int http_status = 0;              // 0 over gRPC, or if no answer began
  // Why it failed; empty: it did not. A stream whose counts do not agree with its usage has failed, whatever its
  // status.
  std::string error;
  // This client cancelled it on purpose: neither completed nor failed.
  bool cancelled = false;
  std::optional<double> retry_after_ms;

  bool ok() const { return error.empty() && !cancelled; }
  bool failed() const { return !error.empty(); }
};

// What became of --replay-check: requests that were repeated alone, and those of them whose token ids were others then.
struct ReplayOutcome {
  size_t checked = 0;
  std::vector<std::string> mismatched;  // request ids
};

// Tokens that one counted token stands for: 1, but over HTTP, where the server's usage may tell of more or fewer than
// the messages showed.
inline double TokensPerCounted(const RequestResult& request) {
  const double counted = request.first_tokens + static_cast<double>(request.itls_s.size());
  return counted > 0 ? request.output_tokens / counted : 0;
}

// Milliseconds of a completed request, from its intended time on.
inline double TtftMs(const RequestResult& request) { return 1e3 * (request.first_token_s - request.intended_s); }
inline double E2elMs(const RequestResult& request) { return 1e3 * (request.end_s - request.intended_s); }

// The same for each token after the first; absent if there is none.
inline std::optional<double> TpotMs(const RequestResult& request) {
  return request.output_tokens > 1
             ? std::optional<double>((E2elMs(request) - TtftMs(request)) / (request.output_tokens - 1))
             : std::nullopt;
}

struct RunResult {
  std::vector<RequestResult> requests;  // those sent, in the order of sending
  double duration_s = 0;                // from the start to the last end
  double cpu_cores = 0;                 // this process's CPU time / duration
  bool interrupted = false;
  bool gave_up = false;  // as LoadPlan::gives_up said
  std::optional<ReplayOutcome> replay;
  std::optional<ServerMetrics> server;
};

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_RESULT_H_
