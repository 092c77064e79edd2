#include "server/acceptor.h"

#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/check.h"

namespace quire {
namespace {

constexpr int kPauseMs = 100;  // until the system is asked for a descriptor again
constexpr absl::Duration kWarnEvery = absl::Seconds(10);

// Descriptors below this one are for connections. The system gives the lowest that is free, so that the number of a
// new one says how many are taken. An eighth is kept, at most 64.
int FirstReservedDescriptor() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return INT32_MAX;
  return static_cast<int>(std::min<rlim_t>(limit.rlim_cur - std::min<rlim_t>(limit.rlim_cur / 8, 64), INT32_MAX));
}

// Whether there is still somebody at the other end; gRPC would report the ones who left as errors of ours.
bool HasPeer(int fd) {
  sockaddr_storage peer{};
  socklen_t size = sizeof peer;
  return getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) == 0;
}

}  // namespace

Acceptor::Acceptor(std::vector<ListenSocket> sockets, Sink sink)
    : sockets_(std::move(sockets)), sink_(std::move(sink)), bell_(eventfd(0, EFD_CLOEXEC)) {
  Check(bell_ >= 0, "eventfd");
  thread_ = std::thread([this] { Run(); });
}

Acceptor::~Acceptor() {
  Stop();
  close(bell_);
}

void Acceptor::Stop() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(bell_, &one, sizeof one);
  thread_.join();
  sockets_.clear();
}

void Acceptor::Run() {
  std::vector<pollfd> files = {{bell_, POLLIN, 0}};
  for (const ListenSocket& socket : sockets_) files.push_back({socket.fd(), POLLIN, 0});
  bool has_room = true;
  while (true) {
    // Without room only the bell is waited for: the sockets would be ready all the time.
    poll(files.data(), has_room ? files.size() : 1, has_room ? -1 : kPauseMs);
    if (files[0].revents != 0) return;
    has_room = true;
    for (size_t i = 1; i < files.size(); ++i) has_room &= AcceptFrom(files[i].fd);
  }
}

bool Acceptor::AcceptFrom(int listener_fd) {
  while (true) {
    const int fd = accept4(listener_fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
      const int reason = errno;
      if (reason == EAGAIN || reason == EWOULDBLOCK) return true;
      if (reason == EINTR || reason == ECONNABORTED) continue;          // that one has left; the next may be there
      Warn(absl::StrCat("connections wait: ", std::strerror(reason)));  // no descriptor or no memory, most likely
      return false;
    }
    if (fd >= FirstReservedDescriptor()) {
      Warn("a connection is refused: the process has as many files open as RLIMIT_NOFILE allows, but for a reserve");
      close(fd);
    } else if (HasPeer(fd)) {
      sink_(listener_fd, fd);
    } else {
      close(fd);
    }
  }
}

void Acceptor::Warn(const std::string& what) {
  const absl::Time now = absl::Now();
  if (now < warned_at_ + kWarnEvery) return;
  warned_at_ = now;
  spdlog::warn("{}", what);
}

}  // namespace quire
