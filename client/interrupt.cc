#include "client/interrupt.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <utility>

#include "client/io.h"

namespace quire::client {
namespace {

// timeout(1) and process managers may send one signal both to the process and to its group: within this time they are
// one.
constexpr std::chrono::milliseconds kOneSignal(500);

}  // namespace

Interrupt::Interrupt() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, &old_mask_);
  stop_fd_ = eventfd(0, EFD_CLOEXEC);
  signal_fd_ = signalfd(-1, &signals, SFD_CLOEXEC);
  watcher_ = std::thread(&Interrupt::Watch, this);
}

Interrupt::~Interrupt() {
  eventfd_write(stop_fd_, 1);
  watcher_.join();
  close(stop_fd_);
  close(signal_fd_);
  pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
}

void Interrupt::SetHandler(std::function<void()> handler) {
  std::lock_guard<std::mutex> lock(mutex_);
  handler_ = std::move(handler);
  if (raised_ && handler_) {
    handler_();
  }
}

bool Interrupt::raised() {
  std::lock_guard<std::mutex> lock(mutex_);
  return raised_;
}

void Interrupt::Watch() {
  while (true) {
    pollfd fds[2] = {{stop_fd_, POLLIN, 0}, {signal_fd_, POLLIN, 0}};
    if (poll(fds, 2, -1) < 0) {
      continue;  // EINTR
    }
    if (fds[0].revents != 0) {
      return;
    }
    signalfd_siginfo info;
    if (read(signal_fd_, &info, sizeof(info)) != sizeof(info)) {
      continue;
    }
    std::lock_guard<std::mutex> lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    if (raised_) {
      if (now - raised_at_ > kOneSignal) {
        _exit(kExitInterrupted);
      }
      continue;
    }
    raised_ = true;
    raised_at_ = now;
    if (handler_) {
      handler_();
    }
  }
}

}  // namespace quire::client
