#include "client/load/runner.h"

#include <grpcpp/alarm.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/errors.h"
#include "quire/v1/generation.grpc.pb.h"

namespace quire::client {
namespace {

using Clock = std::chrono::steady_clock;
constexpr double kNever = std::numeric_limits<double>::infinity();

// Where the streams meet the scheduler.
class Board {
 public:
  double Now() const { return std::chrono::duration<double>(Clock::now() - origin_).count(); }

  void CountTokens(size_t count) { output_tokens_.fetch_add(count, std::memory_order_relaxed); }
  uint64_t output_tokens() const { return output_tokens_.load(std::memory_order_relaxed); }

  // The stream's last word: the scheduler may destroy it from now on.
  void Done(size_t index) {
    std::lock_guard<std::mutex> lock(mutex_);
    done_.push_back(index);
    changed_.notify_one();
  }

  void Interrupt() {
    std::lock_guard<std::mutex> lock(mutex_);
    interrupted_ = true;
    changed_.notify_one();
  }

  // Waits until `time_s` or until something happened; what happened: the streams done since the last call.
  std::vector<size_t> WaitUntil(double time_s, bool& interrupted) {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto happened = [this, &interrupted] { return !done_.empty() || interrupted_ != interrupted; };
    const double wait_s = std::min(time_s - Now(), 3600.0);
    changed_.wait_for(lock, std::chrono::duration<double>(std::max(0.0, wait_s)), happened);
    interrupted = interrupted_;
    return std::exchange(done_, {});
  }

 private:
  const Clock::time_point origin_ = Clock::now();
  std::atomic<uint64_t> output_tokens_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<size_t> done_;  // guarded by mutex_
  bool interrupted_ = false;  // guarded by mutex_
};

// One Generate under way. Its reactions are serial, by gRPC's contract.
class Stream final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  Stream(size_t index, const LoadPlan& plan, Board& board, RequestResult& result)
      : index_(index), plan_(plan), planned_(plan.requests[index]), board_(board), result_(result) {}

  void Start(const Connection& connection, v1::GenerationService::Stub& stub) {
    connection.Prepare(context_);
    if (planned_.deadline.has_value()) {
      context_.set_deadline(absl::ToChronoTime(absl::Now() + *planned_.deadline));
    }
    stub.async()->Generate(&context_, &planned_.request, this);
    if (reads_slowly()) {
      AddHold();  // reads begin outside of reactions; the last one lets go
    }
    StartRead(&response_);
    result_.sent_s = board_.Now();
    StartCall();
  }

  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (!ok) {
      if (reads_slowly()) {
        RemoveHold();
      }
      return;
    }
    Take(board_.Now());
    if (!reads_slowly()) {
      StartRead(&response_);
      return;
    }
    // An alarm's function may still run when the next message is here: each has its own.
    alarm_ = std::make_unique<grpc::Alarm>();
    alarm_->Set(absl::ToChronoTime(absl::Now() + plan_.read_delay), [this](bool) { StartRead(&response_); });
  }

  void OnDone(const grpc::Status& status) override {
    result_.end_s = board_.Now();
    result_.grpc_code = status.error_code();
    result_.cancelled = cancelled_ && status.error_code() == grpc::StatusCode::CANCELLED;
    if (!result_.cancelled) {
      result_.error = status.ok() ? Violation() : Describe(status);
    }
    if (const auto delay = RetryDelay(status); !status.ok() && delay.has_value()) {
      result_.retry_after_ms = absl::ToDoubleMilliseconds(*delay);
    }
    board_.Done(index_);  // *this may be gone behind it
  }

 private:
  bool reads_slowly() const { return plan_.read_delay > absl::ZeroDuration(); }

  void Take(double now) {
    if (response_.has_accepted()) {
      ++num_accepted_;
      result_.prompt_tokens = response_.accepted().prompt_tokens();
    } else if (response_.has_delta()) {
      TakeDelta(response_.delta(), now);
    } else if (response_.has_finished()) {
      ++num_finished_;
      const v1::Finished& finished = response_.finished();
      const std::string reason = v1::FinishReason_Name(finished.reason());
      result_.finish_reason = std::string(absl::StripPrefix(reason, "FINISH_REASON_"));
      result_.cached_tokens = finished.usage().cached_tokens();
      usage_ = finished.usage();
    }
  }

  void TakeDelta(const v1::Delta& delta, double now) {
    disorder_ = disorder_ || num_accepted_ == 0 || num_finished_ > 0 || delta.index() != 0;
    if (plan_.keep_text) {
      result_.text += delta.text();
    }
    const uint32_t count = delta.token_ids_size();
    if (count == 0) {
      return;
    }
    if (result_.output_tokens == 0) {
      result_.first_token_s = now;
    } else {
      result_.itls_s.insert(result_.itls_s.end(), count, static_cast<float>((now - result_.last_token_s) / count));
    }
    result_.last_token_s = now;
    result_.output_tokens += count;
    if (plan_.keep_token_ids) {
      result_.token_ids.insert(result_.token_ids.end(), delta.token_ids().begin(), delta.token_ids().end());
    }
    board_.CountTokens(count);
    if (planned_.cancel_after_tokens > 0 && result_.output_tokens >= planned_.cancel_after_tokens && !cancelled_) {
      cancelled_ = true;
      Cancel();
    }
  }

  // What is wrong with a stream whose status is OK; empty: nothing.
  std::string Violation() const {
    if (num_accepted_ != 1 || num_finished_ != 1 || disorder_) {
      return absl::StrCat("stream out of order: ", num_accepted_, " Accepted, ", num_finished_, " Finished",
                          disorder_ ? ", a Delta outside of them or of another output" : "");
    }
    if (usage_.completion_tokens() != result_.output_tokens) {
      return absl::StrCat("usage.completion_tokens is ", usage_.completion_tokens(), ", but ", result_.output_tokens,
                          " token ids came");
    }
    const v1::GenerateRequest& request = planned_.request;
    if (request.has_tokens() && usage_.prompt_tokens() != static_cast<uint32_t>(request.tokens().ids_size())) {
      return absl::StrCat("usage.prompt_tokens is ", usage_.prompt_tokens(), ", but ", request.tokens().ids_size(),
                          " token ids were sent");
    }
    return result_.output_tokens == 0 ? "finished without a token" : "";
  }

  const size_t index_;
  const LoadPlan& plan_;
  const PlannedRequest& planned_;
  Board& board_;
  RequestResult& result_;
  grpc::ClientContext context_;
  v1::GenerateResponse response_;
  v1::Usage usage_;
  int num_accepted_ = 0;
  int num_finished_ = 0;
  bool disorder_ = false;
  bool cancelled_ = false;  // by cancel_after_tokens
  std::unique_ptr<grpc::Alarm> alarm_;
};

// The scheduler: one run, on the calling thread.
class Run {
 public:
  Run(const std::vector<Connection>& connections, const LoadPlan& plan, double progress_s,
      const std::function<void(const Tally&)>& on_progress)
      : connections_(connections),
        plan_(plan),
        progress_s_(progress_s),
        on_progress_(on_progress),
        results_(plan.requests.size()),
        streams_(plan.requests.size()),
        // Places are free from the start. Without a limit there is one for each request.
        free_since_s_(plan.max_concurrency.value_or(plan.requests.size()), 0.0),
        next_progress_s_(progress_s) {
    for (const Connection& connection : connections) {
      stubs_.push_back(v1::GenerationService::NewStub(connection.channel()));
    }
  }

  void Interrupt() { board_.Interrupt(); }

  RunResult Go() {
    while (!interrupted_ && num_sent_ < plan_.requests.size()) {
      const double due_s = NextDue();
      if (board_.Now() >= due_s) {
        Send(due_s);
      }
      Await(NextDue());
    }
    if (interrupted_) {
      for (const auto& stream : streams_) {
        if (stream != nullptr) {
          stream->Cancel();
        }
      }
    }
    while (num_done_ < num_sent_) {
      Await(kNever);
    }
    RunResult result;
    result.duration_s = last_end_s_;
    result.interrupted = interrupted_;
    results_.resize(num_sent_);
    result.requests = std::move(results_);
    return result;
  }

 private:
  // When the next request may go: not before it arrives and not before a place is free.
  double NextDue() const {
    if (num_sent_ == plan_.requests.size() || free_since_s_.empty()) {
      return kNever;
    }
    return plan_.arrivals_s.empty() ? free_since_s_.front()
                                    : std::max(free_since_s_.front(), plan_.arrivals_s[num_sent_]);
  }

  void Send(double due_s) {
    const size_t index = num_sent_++;
    RequestResult& result = results_[index];
    result.request_id = plan_.requests[index].request.request_id();
    result.tenant = plan_.requests[index].request.scheduling().tenant();
    result.due_s = due_s;
    result.intended_s = plan_.arrivals_s.empty() ? due_s : plan_.arrivals_s[index];
    free_since_s_.pop_front();
    const size_t turn = index % connections_.size();
    streams_[index] = std::make_unique<Stream>(index, plan_, board_, result);
    streams_[index]->Start(connections_[turn], *stubs_[turn]);
  }

  // Waits until `time_s` or until a stream is done, and tells the progress meanwhile.
  void Await(double time_s) {
    for (size_t index : board_.WaitUntil(std::min(time_s, next_progress_s_), interrupted_)) {
      ++num_done_;
      num_failed_ += results_[index].failed() ? 1 : 0;
      num_cancelled_ += results_[index].cancelled ? 1 : 0;
      free_since_s_.push_back(results_[index].end_s);
      last_end_s_ = std::max(last_end_s_, results_[index].end_s);
      streams_[index].reset();
    }
    if (const double now = board_.Now(); now >= next_progress_s_) {
      next_progress_s_ = now + progress_s_;
      on_progress_({now, num_sent_, num_done_ - num_failed_ - num_cancelled_, num_failed_, num_cancelled_,
                    board_.output_tokens()});
    }
  }

  const std::vector<Connection>& connections_;
  const LoadPlan& plan_;
  const double progress_s_;
  const std::function<void(const Tally&)>& on_progress_;
  std::vector<std::unique_ptr<v1::GenerationService::Stub>> stubs_;  // one for each connection
  Board board_;
  std::vector<RequestResult> results_;            // by request; that of a live stream is its own
  std::vector<std::unique_ptr<Stream>> streams_;  // by request; null before it is sent and when it is done
  std::deque<double> free_since_s_;               // the free places, since when; ascending
  double next_progress_s_;
  double last_end_s_ = 0;
  size_t num_sent_ = 0;
  size_t num_done_ = 0;
  size_t num_failed_ = 0;
  size_t num_cancelled_ = 0;
  bool interrupted_ = false;
};

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

RunResult RunPlan(const std::vector<Connection>& connections, const LoadPlan& plan, Interrupt& interrupt,
                  double progress_s, const std::function<void(const Tally&)>& on_progress) {
  Run run(connections, plan, progress_s, on_progress);
  interrupt.SetHandler([&run] { run.Interrupt(); });
  const double cpu_s = CpuSeconds();
  RunResult result = run.Go();
  result.cpu_cores = result.duration_s > 0 ? (CpuSeconds() - cpu_s) / result.duration_s : 0;
  interrupt.SetHandler(nullptr);
  return result;
}

}  // namespace quire::client
