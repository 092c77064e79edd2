// One server stream over gRPC, of any service: what its messages mean is the derived class's to say.

#ifndef QUIRE_CLIENT_LOAD_GRPC_STREAM_H_
#define QUIRE_CLIENT_LOAD_GRPC_STREAM_H_

#include <grpcpp/alarm.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <memory>
#include <utility>

#include "client/channel.h"
#include "client/errors.h"
#include "client/load/backend.h"

namespace quire::client {

// Its reactions are serial, by gRPC's contract.
template <typename Response>
class GrpcStream : public Backend::Stream, public grpc::ClientReadReactor<Response> {
 public:
  GrpcStream(const Connection& connection, const StreamOptions& options, StreamEvents& events)
      : read_delay_(options.read_delay), events_(events) {
    connection.Prepare(context_);
    if (options.deadline.has_value()) {
      context_.set_deadline(absl::ToChronoTime(absl::Now() + *options.deadline));
    }
  }

  void Cancel() override { context_.TryCancel(); }

  void OnReadDone(bool ok) final {
    if (!ok) {
      if (reads_slowly()) {
        this->RemoveHold();
      }
      return;
    }
    if (!unwanted_ && !Take(response_)) {
      unwanted_ = true;
      Cancel();
    }
    if (!reads_slowly()) {
      this->StartRead(&response_);
      return;
    }
    // An alarm's function may still run when the next message is here: each has its own.
    alarm_ = std::make_unique<grpc::Alarm>();
    alarm_->Set(absl::ToChronoTime(absl::Now() + read_delay_), [this](bool) { this->StartRead(&response_); });
  }

  void OnDone(const grpc::Status& status) final {
    Ending ending;
    ending.grpc_code = CodeName(status.error_code());
    ending.cancelled = status.error_code() == grpc::StatusCode::CANCELLED;
    ending.retry_after = status.ok() ? std::nullopt : RetryDelay(status);
    Conclude(ending);
    if (!status.ok()) {
      ending.error = client::Describe(status);
    }
    events_.OnEnd(ending);  // *this may be gone behind it
  }

 protected:
  grpc::ClientContext& context() { return context_; }
  StreamEvents& events() { return events_; }

  // Call it when the stub knows the call.
  void Begin() {
    if (reads_slowly()) {
      this->AddHold();  // reads begin outside of reactions; the last one lets go
    }
    this->StartRead(&response_);
    events_.OnSent();
    this->StartCall();
  }

  // One message; false: no more is wanted.
  virtual bool Take(const Response& response) = 0;

  // Fills in finish reason, usage and, of a stream whose status is OK, what is wrong with it.
  virtual void Conclude(Ending& ending) = 0;

 private:
  bool reads_slowly() const { return read_delay_ > absl::ZeroDuration(); }

  const absl::Duration read_delay_;
  StreamEvents& events_;
  grpc::ClientContext context_;
  Response response_;
  bool unwanted_ = false;
  std::unique_ptr<grpc::Alarm> alarm_;
};

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_GRPC_STREAM_H_
