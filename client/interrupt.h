// SIGINT and SIGTERM as a call on a thread of their own, so that a command can cancel its RPCs and still say what it
// has.
//
// The first signal runs the handler, a later one ends the process at once. At most one Interrupt lives at a time, and
// it is made before any thread that gRPC starts: those inherit its signal mask.

#ifndef QUIRE_CLIENT_INTERRUPT_H_
#define QUIRE_CLIENT_INTERRUPT_H_

#include <signal.h>

#include <chrono>
#include <functional>
#include <mutex>
#include <thread>

namespace quire::client {

class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // From now on the first signal calls `handler`; one that came before calls it now. An empty handler does nothing. On
  // return no earlier handler is running.
  void SetHandler(std::function<void()> handler);

  // Whether a signal has come. Any thread.
  bool raised();

 private:
  void Watch();

  int stop_fd_;    // an eventfd: the watcher's order to end
  int signal_fd_;  // a signalfd of both signals
  sigset_t old_mask_;
  std::mutex mutex_;
  std::function<void()> handler_;                    // guarded by mutex_
  bool raised_ = false;                              // guarded by mutex_
  std::chrono::steady_clock::time_point raised_at_;  // guarded by mutex_
  std::thread watcher_;
};

}  // namespace quire::client

#endif  // QUIRE_CLIENT_INTERRUPT_H_
