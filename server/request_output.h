// RequestOutput: folds the events of one request into the responses that its client gets: Accepted, PromptLogprobs,
// Deltas, Finished, or the status with which it fails.
//
// A request has n outputs, each with a text of its own; it is over when all of them are. A stop string found here ends
// its output at its token, whatever the engine has sampled since: the text decides.
//
// Thread: the detokenizer's. It knows nothing of gRPC and of the engine.

#ifndef QUIRE_SERVER_REQUEST_OUTPUT_H_
#define QUIRE_SERVER_REQUEST_OUTPUT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "quire/v1/generation.pb.h"
#include "scheduler/request.h"
#include "scheduler/token_event.h"
#include "server/metrics.h"
#include "server/text_stream.h"

namespace quire {

// What of a request matters to its output only.
struct OutputSpec {
  std::string request_id;  // the client's, or the one made for it
  CallInfo call;
  TextStream::Options text;
  bool wants_text = true;
  bool wants_token_ids = true;
};

class RequestOutput {
 public:
  // Responses of at most this many prompt positions: with 20 log-probabilities each they stay below 4 MiB.
  static constexpr size_t kMaxPositionsPerMessage = 8192;

  struct Response {
    v1::GenerateResponse message;
    uint32_t num_tokens = 0;  // generated tokens that it delivers
  };

  // The tokenizer must outlive it.
  RequestOutput(std::shared_ptr<const Request> request, OutputSpec spec, const Tokenizer& tokenizer);

  // Whether the output is complete: tokens that come for it are for nobody.
  bool IsOver(uint32_t index) const { return outputs_[index].reason != v1::FINISH_REASON_UNSPECIFIED; }

  // Takes the request's next event and appends what the client is told. REQUIRES: !over(), nor is the event's output.
  void Take(const TokenEvent& event, std::vector<Response>& responses);

  bool over() const { return num_live_ == 0; }
  // Valid once it is over. The status is OK after the last Finished.
  const absl::Status& status() const { return status_; }
  // The event taken last ended an output of which the engine does not know it: a stop string was found.
  bool must_stop_engine() const { return must_stop_engine_; }
  // What metrics and log tell; complete once it is over.
  RequestRecord Record() const;

  // Of a kToken event that was taken last: the time since the token of its output before; the first one counts from the
  // arrival.
  absl::Duration last_gap() const { return last_gap_; }
  uint32_t num_tokens(uint32_t index) const { return outputs_[index].num_tokens; }
  // Generated tokens that no response has delivered (half a character, and no ids wanted).
  uint32_t untold_tokens() const;

 private:
  struct Output {
    std::optional<TextStream> text;  // none if neither text nor stop strings are wanted
    uint32_t num_tokens = 0;         // generated and counted
    uint32_t untold_tokens = 0;
    absl::Time first_token = absl::InfiniteFuture();  // InfiniteFuture: not yet
    absl::Time last_event;
    v1::FinishReason reason = v1::FINISH_REASON_UNSPECIFIED;
  };
  // Times of an output, or of the whole request.
  struct Phases {
    absl::Duration queued, prefill, decode;
  };

  void TakeStarted(const TokenEvent& event, std::vector<Response>& responses);
  void TakePromptLogprobs(const TokenEvent& event, std::vector<Response>& responses);
  void TakeToken(const TokenEvent& event, std::vector<Response>& responses);
  void TakeEnded(const TokenEvent& event);
  void TakeStopped(const TokenEvent& event, std::vector<Response>& responses);
  // Tells the client that it has begun, and with which values.
  void Accept(std::vector<Response>& responses) const;
  // The output is complete, by reason_.
  void Finish(uint32_t index, v1::Finished finished, std::vector<Response>& responses);
  // Runs the token through the text stream and decides whether it ends the output. Returns the text to show.
  std::string Advance(const TokenEvent& event, Output& output, v1::Finished& finished);
  Phases PhasesOf(absl::Time first_token, absl::Time last_event) const;
  void FillUsage(const Output& output, v1::Finished& finished) const;

  const std::shared_ptr<const Request> request_;
  const OutputSpec spec_;
  std::vector<Output> outputs_;  // [num_outputs]
  uint32_t num_live_;            // outputs that are not complete; 0 once the request has ended otherwise
  uint32_t cached_tokens_ = 0;
  absl::Time started_ = absl::InfiniteFuture();  // InfiniteFuture: not yet
  absl::Time ended_ = absl::InfinitePast();      // when it ended otherwise
  absl::Duration last_gap_;
  bool must_stop_engine_ = false;
  Ending ending_ = Ending::kNone;
  absl::Status status_;
};

}  // namespace quire

#endif  // QUIRE_SERVER_REQUEST_OUTPUT_H_
