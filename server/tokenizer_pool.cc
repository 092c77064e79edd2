#include "server/tokenizer_pool.h"

#include <utility>

#include "server/errors.h"

namespace quire {

TokenizerPool::TokenizerPool(const Options& options) : options_(options) {
  for (int i = 0; i < options.num_threads; ++i) threads_.emplace_back([this] { Work(); });
}

TokenizerPool::~TokenizerPool() { Shutdown(); }

absl::Status TokenizerPool::Submit(size_t bytes, absl::AnyInvocable<void()> job) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stop_) return TryLater(absl::StatusCode::kUnavailable, "the server is going down", absl::Seconds(1));
    // A text larger than the bound waits alone rather than never.
    const bool full =
        waiting_.size() >= options_.max_jobs || (!waiting_.empty() && waiting_bytes_ + bytes > options_.max_bytes);
    if (full) {
      return TryLater(absl::StatusCode::kResourceExhausted, "too many prompts wait to be tokenized",
                      absl::Milliseconds(100));
    }
    waiting_bytes_ += bytes;
    waiting_.push_back({bytes, std::move(job)});
  }
  wake_.notify_one();
  return absl::OkStatus();
}

void TokenizerPool::Shutdown() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void TokenizerPool::Work() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    Job job = std::move(waiting_.front());
    waiting_.pop_front();
    waiting_bytes_ -= job.bytes;
    lock.unlock();
    job.run();
    job.run = nullptr;  // frees what it holds before the lock is taken
    lock.lock();
  }
}

}  // namespace quire
