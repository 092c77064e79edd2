#include "client/interrupt.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <utility>

#include "client/io.h"

namespace quire::client {

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
    if (raised_) {
      _exit(kExitInterrupted);
    }
    raised_ = true;
    if (handler_) {
      handler_();
    }
  }
}

}  // namespace quire::client
