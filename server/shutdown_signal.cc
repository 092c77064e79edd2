#include "server/shutdown_signal.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "absl/time/clock.h"
#include "kernels/check.h"

namespace quire {

ShutdownSignal::ShutdownSignal() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  Check(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0, "SIGTERM and SIGINT are blocked");
  signal(SIGPIPE, SIG_IGN);
  signals_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  bell_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  Check(signals_ >= 0 && bell_ >= 0, "signalfd and eventfd");
}

ShutdownSignal::~ShutdownSignal() {
  close(signals_);
  close(bell_);
}

ShutdownSignal::Event ShutdownSignal::Wait(absl::Time deadline) {
  pollfd files[] = {{signals_, POLLIN, 0}, {bell_, POLLIN, 0}};
  while (true) {
    // In pieces of at most a minute: poll counts in int milliseconds.
    const absl::Duration left = std::clamp(deadline - absl::Now(), absl::ZeroDuration(), absl::Minutes(1));
    const int ready =
        poll(files, 2, static_cast<int>(absl::ToInt64Milliseconds(absl::Ceil(left, absl::Milliseconds(1)))));
    signalfd_siginfo info;
    if (ready > 0 && read(signals_, &info, sizeof info) == sizeof info) return Event::kSignal;
    uint64_t rings;
    if (ready > 0 && read(bell_, &rings, sizeof rings) == sizeof rings) return Event::kBell;
    if (absl::Now() >= deadline) return Event::kTimeout;
  }
}

void ShutdownSignal::Ring() {
  const uint64_t one = 1;
  // An eventfd takes a write unless its counter is full, and then it is ringing anyway.
  [[maybe_unused]] const ssize_t written = write(bell_, &one, sizeof one);
}

}  // namespace quire
