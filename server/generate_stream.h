// GenerateStream: one Generate call as gRPC's callback API sees it.
//
// Responses wait in it until the client has taken the ones before: at most one write is outstanding, and deltas are put
// together while it is. Push never waits; a client that leaves max_unsent_tokens untaken has its request paused until
// half of them are gone. The call is finished exactly once, after End, when all is written or the
// client is gone.
//
// Lifetime: gRPC holds it (through itself) until OnDone; the pool's job, the registry and the detokenizer hold it while
// they need it. Thread: any; its own mutex guards its state. No operation of gRPC and no callback is begun under the
// mutex, except TryCancel and pause_engine, which keep an order so.

#ifndef QUIRE_SERVER_GENERATE_STREAM_H_
#define QUIRE_SERVER_GENERATE_STREAM_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "scheduler/request.h"
#include "scheduler/token_event.h"
#include "server/metrics.h"
#include "server/pending_responses.h"
#include "server/response_sink.h"

namespace quire {

class GenerateStream final : public grpc::ServerWriteReactor<grpc::ByteBuffer>, public ResponseSink {
 public:
  struct Callbacks {
    std::function<void(RequestId, Ending)> cancel_engine;  // the request is to end
    std::function<void(RequestId, bool)> pause_engine;     // true: it is to pause; false: to resume
    std::function<void(GenerateStream*)> before_finish;    // its name is free again
    std::function<void(GenerateStream*)> done;             // gRPC has let go of it
    // The messages on the wire that a response becomes, perhaps none; absent: itself.
    std::function<void(v1::GenerateResponse, std::deque<grpc::ByteBuffer>&)> encode = nullptr;
  };

  // `context` is valid until OnDone.
  static std::shared_ptr<GenerateStream> Create(grpc::CallbackServerContext* context, Metrics& metrics,
                                                uint64_t max_unsent_tokens, Callbacks callbacks);

  // ResponseSink. After a client has gone, what is pushed is discarded.
  void Push(v1::GenerateResponse response, uint32_t num_tokens) override;
  void End(const absl::Status& status) override;

  // The request is now the engine's, under this id: from here on a cancel goes there. A cancel that came before is sent
  // after it.
  void Submitted(RequestId id);

  // Asks for the end: the engine's last event, or whoever is about to submit, ends the stream.
  void Cancel(Ending ending);

  // Why the request is to end, if Cancel was called or the client has gone.
  std::optional<Ending> cancelled() const;

  // Cuts the call if its client has not taken the outstanding write for `limit`.
  void CutIfStalled(absl::Time now, absl::Duration limit);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  GenerateStream(grpc::CallbackServerContext* context, Metrics& metrics, uint64_t max_unsent_tokens,
                 Callbacks callbacks);

  // Makes messages of the next pending response. REQUIRES: there is one; mutex_ is held.
  void Encode();
  // Begins the next operation, if none is outstanding and there is something to do.
  void Advance();
  // Pauses or resumes the request, as its unsent tokens ask for. REQUIRES: mutex_ is held.
  void PauseOrResume();
  // The client has cancelled, its deadline has passed, or its connection is lost. REQUIRES: OnDone has not been called.
  void ClientGone();

  grpc::CallbackServerContext* const context_;
  Metrics& metrics_;
  const uint64_t max_unsent_tokens_;
  const Callbacks callbacks_;

  mutable std::mutex mutex_;
  std::shared_ptr<GenerateStream> self_;  // until OnDone
  PendingResponses pending_;
  std::deque<grpc::ByteBuffer> encoded_;  // of responses taken from pending_, still to be written
  bool write_outstanding_ = false;
  bool write_stalls_ = false;            // gRPC was not told of the outstanding write (FailPoint::kWriteStall)
  absl::Time write_began_;               // of the outstanding write, or of the last operation
  std::optional<absl::Status> end_;      // how the call is to finish, once it is known
  bool finishing_ = false;               // Finish was called
  bool gone_ = false;                    // the client takes nothing any more
  bool cut_ = false;                     // by CutIfStalled
  bool paused_ = false;                  // the engine was told last to pause
  bool done_ = false;                    // OnDone was called: the context is gone
  std::optional<RequestId> request_id_;  // once submitted
  std::optional<Ending> cancelled_;
  grpc::ByteBuffer writing_;  // alive until its write is done; touched only by the thread that begins an operation
};

}  // namespace quire

#endif  // QUIRE_SERVER_GENERATE_STREAM_H_
