#include "client/load/runner.h"

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

// Listens to one stream and writes down what it does.
class Recorder final : public StreamEvents {
 public:
  Recorder(size_t index, const LoadPlan& plan, Board& board, RequestResult& result)
      : index_(index), plan_(plan), planned_(plan.requests[index]), board_(board), result_(result) {}

  void Start(Backend& backend) {
    result_.prompt_tokens = planned_.request.tokens().ids_size();
    stream_ = backend.Open(planned_.request, {planned_.deadline, plan_.read_delay}, *this);
  }

  void Cancel() { stream_->Cancel(); }

  void OnSent() override { result_.sent_s = board_.Now(); }

  bool OnTokens(const TokenDelta& delta) override {
    const double now = board_.Now();
    if (plan_.keep_text) {
      result_.text.append(delta.text.data(), delta.text.size());
    }
    const uint32_t count = delta.token_ids.empty() ? delta.num_tokens : static_cast<uint32_t>(delta.token_ids.size());
    if (count == 0) {
      return true;
    }
    if (result_.output_tokens == 0) {
      result_.first_token_s = now;
      result_.first_tokens = count;
    } else {
      result_.itls_s.insert(result_.itls_s.end(), count, static_cast<float>((now - result_.last_token_s) / count));
    }
    result_.last_token_s = now;
    result_.output_tokens += count;
    ++result_.num_messages;
    num_ids_ += delta.token_ids.size();
    if (plan_.keep_token_ids) {
      result_.token_ids.insert(result_.token_ids.end(), delta.token_ids.begin(), delta.token_ids.end());
    }
    board_.CountTokens(count);
    cancelled_ = planned_.cancel_after_tokens > 0 && result_.output_tokens >= planned_.cancel_after_tokens;
    return !cancelled_;
  }

  void OnEnd(const Ending& ending) override {
    result_.end_s = board_.Now();
    result_.grpc_code = ending.grpc_code;
    result_.http_status = ending.http_status;
    result_.finish_reason = ending.finish_reason;
    result_.cancelled = cancelled_ && ending.cancelled;
    if (!result_.cancelled) {
      result_.error = ending.error.empty() ? CountError(ending) : ending.error;
    }
    if (ending.retry_after.has_value()) {
      result_.retry_after_ms = absl::ToDoubleMilliseconds(*ending.retry_after);
    }
    if (ending.usage.has_value()) {
      result_.has_usage = true;
      result_.prompt_tokens = ending.usage->prompt_tokens;
      result_.cached_tokens = ending.usage->cached_tokens;
      if (result_.ok() && ending.usage->completion_tokens > 0) {
        result_.output_tokens = ending.usage->completion_tokens;
      }
    }
    board_.Done(index_);  // *this may be gone behind it
  }

 private:
  // What is wrong with the tokens of a stream that ended well; empty: nothing. Ids must be as many as the server
  // counts; messages of text may be fewer.
  std::string CountError(const Ending& ending) const {
    if (num_ids_ > 0 && ending.usage.has_value() && ending.usage->completion_tokens != num_ids_) {
      return absl::StrCat("usage.completion_tokens is ", ending.usage->completion_tokens, ", but ", num_ids_,
                          " token ids came");
    }
    return result_.output_tokens == 0 ? "finished without a token" : "";
  }

  const size_t index_;
  const LoadPlan& plan_;
  const PlannedRequest& planned_;
  Board& board_;
  RequestResult& result_;
  size_t num_ids_ = 0;
  bool cancelled_ = false;                   // by cancel_after_tokens
  std::unique_ptr<Backend::Stream> stream_;  // of the scheduler's thread
};

// The scheduler: one run, on the calling thread.
class Run {
 public:
  Run(Backend& backend, const LoadPlan& plan, double progress_s, const std::function<void(const Tally&)>& on_progress)
      : backend_(backend),
        plan_(plan),
        progress_s_(progress_s),
        on_progress_(on_progress),
        results_(plan.requests.size()),
        streams_(plan.requests.size()),
        // Places are free from the start. Without a limit there is one for each request.
        free_since_s_(plan.max_concurrency.value_or(plan.requests.size()), 0.0),
        close_s_(plan.max_seconds.value_or(kNever)),
        next_progress_s_(progress_s) {}

  void Interrupt() { board_.Interrupt(); }

  RunResult Go() {
    while (!interrupted_ && !gave_up_ && num_sent_ < plan_.requests.size() && board_.Now() < close_s_) {
      const double due_s = NextDue();
      if (due_s != kNever && due_s >= close_s_) {
        break;
      }
      if (board_.Now() >= due_s) {
        Send(due_s);
      }
      Await(std::min(NextDue(), close_s_));
    }
    while (num_done_ < num_sent_) {
      if ((interrupted_ || gave_up_) && !cancelled_all_) {
        CancelAll();
      }
      Await(kNever);
    }
    RunResult result;
    result.duration_s = last_end_s_;
    result.interrupted = interrupted_;
    result.gave_up = gave_up_;
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
    streams_[index] = std::make_unique<Recorder>(index, plan_, board_, result);
    streams_[index]->Start(backend_);
  }

  void CancelAll() {
    cancelled_all_ = true;
    for (const auto& stream : streams_) {
      if (stream != nullptr) {
        stream->Cancel();
      }
    }
  }

  // Waits until `time_s` or until a stream is done, and tells the progress meanwhile.
  void Await(double time_s) {
    for (size_t index : board_.WaitUntil(std::min(time_s, next_progress_s_), interrupted_)) {
      ++num_done_;
      if (gave_up_ && cancelled_all_ && results_[index].failed()) {
        results_[index].cancelled = true;  // by this client, on purpose
        results_[index].error.clear();
      }
      num_failed_ += results_[index].failed() ? 1 : 0;
      num_cancelled_ += results_[index].cancelled ? 1 : 0;
      free_since_s_.push_back(results_[index].end_s);
      last_end_s_ = std::max(last_end_s_, results_[index].end_s);
      streams_[index].reset();
      ended_.push_back(&results_[index]);
      gave_up_ = gave_up_ || (plan_.gives_up && plan_.gives_up(results_[index]));
    }
    if (const double now = board_.Now(); now >= next_progress_s_) {
      next_progress_s_ = now + progress_s_;
      on_progress_({now, num_sent_, num_done_ - num_failed_ - num_cancelled_, num_failed_, num_cancelled_,
                    board_.output_tokens(), std::exchange(ended_, {})});
    }
  }

  Backend& backend_;
  const LoadPlan& plan_;
  const double progress_s_;
  const std::function<void(const Tally&)>& on_progress_;
  Board board_;
  std::vector<RequestResult> results_;              // by request; that of a live stream is its own
  std::vector<std::unique_ptr<Recorder>> streams_;  // by request; null before it is sent and when it is done
  std::deque<double> free_since_s_;                 // the free places, since when; ascending
  const double close_s_;                            // nothing is sent from then on
  double next_progress_s_;
  double last_end_s_ = 0;
  std::vector<const RequestResult*> ended_;  // since the last tally
  size_t num_sent_ = 0;
  size_t num_done_ = 0;
  size_t num_failed_ = 0;
  size_t num_cancelled_ = 0;
  bool interrupted_ = false;
  bool gave_up_ = false;
  bool cancelled_all_ = false;
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

RunResult RunPlan(Backend& backend, const LoadPlan& plan, Interrupt& interrupt, double progress_s,
                  const std::function<void(const Tally&)>& on_progress) {
  Run run(backend, plan, progress_s, on_progress);
  interrupt.SetHandler([&run] { run.Interrupt(); });
  const double cpu_s = CpuSeconds();
  RunResult result = run.Go();
  result.cpu_cores = result.duration_s > 0 ? (CpuSeconds() - cpu_s) / result.duration_s : 0;
  interrupt.SetHandler(nullptr);
  return result;
}

}  // namespace quire::client
