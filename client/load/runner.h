// Sends the requests of a load test and takes the times.
//
// The calling thread is the scheduler: it alone decides when a request goes out. Responses come on the backend's
// threads, which take a time stamp, add up and return; no stream waits for another.

#ifndef QUIRE_CLIENT_LOAD_RUNNER_H_
#define QUIRE_CLIENT_LOAD_RUNNER_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "client/interrupt.h"
#include "client/load/backend.h"
#include "client/load/result.h"
#include "quire/v1/generation.pb.h"

namespace quire::client {

struct PlannedRequest {
  v1::GenerateRequest request;
  uint32_t cancel_after_tokens = 0;        // cancel it when so many tokens have come; 0: never
  std::optional<absl::Duration> deadline;  // in place of the connection's
};

struct LoadPlan {
  std::vector<PlannedRequest> requests;
  // Open loop: one due time for each request, seconds from the start, ascending. Empty: a request is due when a place
  // is free.
  std::vector<double> arrivals_s;
  // Requests under way at most; absent: any number.
  std::optional<uint32_t> max_concurrency;
  bool keep_text = false;
  bool keep_token_ids = false;
  // A slow reader: between one message and the wish for the next. What the server writes meanwhile waits in the
  // connection's window, then in the server.
  absl::Duration read_delay = absl::ZeroDuration();
  std::optional<double> max_seconds;  // nothing is sent later than that after the start
  // Asked for each request that has ended, on the scheduler's thread. True: the run is lost; nothing more is sent and
  // what is under way is cancelled on purpose.
  std::function<bool(const RequestResult&)> gives_up;
};

// How far a run is.
struct Tally {
  double elapsed_s = 0;
  size_t sent = 0;
  size_t completed = 0;
  size_t failed = 0;
  size_t cancelled = 0;
  uint64_t output_tokens = 0;
  std::vector<const RequestResult*> ended;  // since the last tally
};

// Runs the plan to its end or the interrupt, which sends nothing more and cancels what is under way. `on_progress` is
// called on this thread every `progress_s` seconds.
RunResult RunPlan(Backend& backend, const LoadPlan& plan, Interrupt& interrupt, double progress_s,
                  const std::function<void(const Tally&)>& on_progress);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_RUNNER_H_
