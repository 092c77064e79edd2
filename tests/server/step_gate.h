// StepGate: holds the steps of an engine while it is closed. Pass is what FailPoint::kSlowStep asks.

#ifndef QUIRE_TESTS_SERVER_STEP_GATE_H_
#define QUIRE_TESTS_SERVER_STEP_GATE_H_

#include <condition_variable>
#include <mutex>

namespace quire {

class StepGate {
 public:
  bool Pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    held_ = closed_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !closed_; });
    return false;
  }
  void Close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
  }
  void AwaitStep() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return held_; });
  }
  void Open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = false;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false, held_ = false;
};

}  // namespace quire

#endif  // QUIRE_TESTS_SERVER_STEP_GATE_H_
