#include "server/generate_stream.h"

#include <chrono>
#include <utility>

#include "absl/time/clock.h"
#include "kernels/fail_point.h"
#include "server/rpc_message.h"

namespace quire {
namespace {

// A client gives up at its deadline, which began to run when it sent the request; ours began when the request arrived.
// A call that is given up so shortly before our deadline has expired, rather than been cancelled.
constexpr std::chrono::milliseconds kDeadlineSlack(20);

}  // namespace

std::shared_ptr<GenerateStream> GenerateStream::Create(grpc::CallbackServerContext* context, Metrics& metrics,
                                                       uint64_t max_unsent_tokens, Callbacks callbacks) {
  std::shared_ptr<GenerateStream> stream(new GenerateStream(context, metrics, max_unsent_tokens, std::move(callbacks)));
  stream->self_ = stream;
  return stream;
}

GenerateStream::GenerateStream(grpc::CallbackServerContext* context, Metrics& metrics, uint64_t max_unsent_tokens,
                               Callbacks callbacks)
    : context_(context), metrics_(metrics), max_unsent_tokens_(max_unsent_tokens), callbacks_(std::move(callbacks)) {}

void GenerateStream::Push(v1::GenerateResponse response, uint32_t num_tokens) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (gone_) {
      metrics_.Discarded(num_tokens);
      return;
    }
    pending_.Push(std::move(response), num_tokens);
    PauseOrResume();
  }
  Advance();
}

void GenerateStream::End(const absl::Status& status) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (end_) return;
    end_ = status;
  }
  Advance();
}

void GenerateStream::PauseOrResume() {
  if (!request_id_ || gone_ || end_) return;
  const uint64_t unsent = pending_.num_tokens();
  const bool pause = paused_ ? unsent > max_unsent_tokens_ / 2 : unsent >= max_unsent_tokens_;
  if (pause == paused_) return;
  paused_ = pause;
  callbacks_.pause_engine(*request_id_, pause);
}

void GenerateStream::Encode() {
  PendingResponses::Entry entry = pending_.Take();
  PauseOrResume();
  metrics_.Delivered(entry.num_tokens);
  if (callbacks_.encode) {
    callbacks_.encode(std::move(entry.response), encoded_);
  } else {
    encoded_.push_back(SerializeMessage(entry.response));
  }
}

void GenerateStream::Advance() {
  enum class Operation { kNone, kWrite, kWriteAndFinish, kFinish } operation = Operation::kNone;
  absl::Status status;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (write_outstanding_ || finishing_) return;
    while (encoded_.empty() && !pending_.empty()) Encode();
    if (!encoded_.empty()) {
      writing_ = std::move(encoded_.front());
      encoded_.pop_front();
      const bool last = end_ && pending_.empty() && encoded_.empty();
      operation = last ? Operation::kWriteAndFinish : Operation::kWrite;
    } else if (end_) {
      operation = Operation::kFinish;
    } else {
      return;
    }
    write_began_ = absl::Now();
    write_outstanding_ = operation == Operation::kWrite;
    finishing_ = !write_outstanding_;
    if (finishing_) status = *end_;
    write_stalls_ = write_outstanding_ && Reached(FailPoint::kWriteStall);
    if (write_stalls_) return;  // until the client is gone
  }
  // Of all threads only this one may begin an operation now: the flags above keep the others out.
  if (operation == Operation::kWrite) {
    StartWrite(&writing_);
    return;
  }
  callbacks_.before_finish(this);
  if (operation == Operation::kWriteAndFinish) {
    StartWriteAndFinish(&writing_, grpc::WriteOptions(), ToGrpcStatus(status));
  } else {
    Finish(ToGrpcStatus(status));
  }
}

void GenerateStream::OnWriteDone(bool ok) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    write_outstanding_ = false;
  }
  if (!ok) ClientGone();  // OnCancel may come before or after
  Advance();
}

void GenerateStream::OnCancel() {
  ClientGone();
  Advance();
}

void GenerateStream::ClientGone() {
  bool expired;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    gone_ = true;
    if (std::exchange(write_stalls_, false)) write_outstanding_ = false;
    encoded_.clear();
    metrics_.Discarded(pending_.Clear());
    expired = !cut_ && std::chrono::system_clock::now() + kDeadlineSlack >= context_->deadline();
  }
  Cancel(expired ? Ending::kExpired : Ending::kCancelled);
}

void GenerateStream::Submitted(RequestId id) {
  std::optional<Ending> ending;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    request_id_ = id;
    ending = cancelled_;
    PauseOrResume();
  }
  if (ending) callbacks_.cancel_engine(id, *ending);
}

void GenerateStream::Cancel(Ending ending) {
  std::optional<RequestId> id;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (cancelled_ || end_) return;
    cancelled_ = ending;
    id = request_id_;
  }
  if (id) callbacks_.cancel_engine(*id, ending);
}

std::optional<Ending> GenerateStream::cancelled() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return cancelled_;
}

void GenerateStream::CutIfStalled(absl::Time now, absl::Duration limit) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!(write_outstanding_ || finishing_) || done_ || cut_ || now - write_began_ < limit) return;
  cut_ = true;
  metrics_.StreamStalled();
  context_->TryCancel();  // under the mutex, for OnDone ends the context's life; its reactions run on other threads
}

void GenerateStream::OnDone() {
  std::shared_ptr<GenerateStream> self;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    done_ = true;
    metrics_.Discarded(pending_.Clear());
    self = std::move(self_);
  }
  callbacks_.done(this);
}

}  // namespace quire
