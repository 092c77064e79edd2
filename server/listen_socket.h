// ListenSocket: a listening TCP socket, or one line that says why there is none.

#ifndef QUIRE_SERVER_LISTEN_SOCKET_H_
#define QUIRE_SERVER_LISTEN_SOCKET_H_

#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/flag_values.h"

namespace quire {

class ListenSocket {
 public:
  // Binds and listens. The error names `flag` (with its dashes), the address and the system's reason.
  static absl::StatusOr<ListenSocket> Open(const ListenAddress& address, absl::string_view flag);

  ~ListenSocket();
  ListenSocket(ListenSocket&& other) noexcept : fd_(std::exchange(other.fd_, -1)), port_(other.port_) {}
  ListenSocket& operator=(ListenSocket&&) = delete;

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
