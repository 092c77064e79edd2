// ListenSocket: a listening TCP socket that does not block, or one line that says why there is none.

#ifndef QUIRE_SERVER_LISTEN_SOCKET_H_
#define QUIRE_SERVER_LISTEN_SOCKET_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/flag_values.h"

namespace quire {

class ListenSocket {
 public:
  // Binds and listens at the first address that the host has. The error names `flag` (with its dashes), the address and
  // the system's reason.
  static absl::StatusOr<ListenSocket> Open(const ListenAddress& address, absl::string_view flag);
  // At every address that the host has here ("localhost" is 127.0.0.1 and, mostly, ::1), all with one port. At least
  // one.
  static absl::StatusOr<std::vector<ListenSocket>> OpenAll(const ListenAddress& address, absl::string_view flag);

  ~ListenSocket();
  ListenSocket(ListenSocket&& other) noexcept : fd_(std::exchange(other.fd_, -1)), port_(other.port_) {}
  ListenSocket& operator=(ListenSocket&&) = delete;

  int fd() const { return fd_; }
  uint16_t port() const { return port_; }
  // Hands the descriptor over.
  int Release() { return std::exchange(fd_, -1); }

 private:
  ListenSocket(int fd, uint16_t port) : fd_(fd), port_(port) {}

  int fd_;  // negative: handed over
  uint16_t port_;
};

}  // namespace quire

#endif  // QUIRE_SERVER_LISTEN_SOCKET_H_
