#include "server/listen_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

// A connection whose peer acknowledges nothing for this long is over, as gRPC would have it with our keepalive
// time-out.
constexpr int kUnacknowledgedMs = 20000;

// What is said of a port that cannot be had.
absl::Status Failed(const ListenAddress& address, absl::string_view flag, absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat(flag, " ", address.ToString(), ": cannot listen there: ", reason));
}

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

absl::StatusOr<Addresses> Resolve(const ListenAddress& address, absl::string_view flag) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const std::string port = absl::StrCat(address.port);
  if (const int error = getaddrinfo(address.host.c_str(), port.c_str(), &hints, &found); error != 0) {
    return Failed(address, flag, gai_strerror(error));
  }
  return Addresses(found, freeaddrinfo);
}

uint16_t& PortIn(sockaddr& address) {
  return address.sa_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                       : reinterpret_cast<sockaddr_in&>(address).sin_port;
}

// Returns the descriptor, or a negative number with errno set.
int BindAndListenAt(const sockaddr& address, socklen_t size) {
  const int fd = socket(address.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return fd;
  const int on = 1, off = 0;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);  // a restart need not wait for old connections to time out
  if (address.sa_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  // Connections inherit these.
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &kUnacknowledgedMs, sizeof kUnacknowledgedMs);
  if (bind(fd, &address, size) == 0 && listen(fd, SOMAXCONN) == 0) return fd;
  const int reason = errno;
  close(fd);
  errno = reason;
  return -1;
}

bool LacksFamily(int reason) { return reason == EADDRNOTAVAIL || reason == EAFNOSUPPORT; }

// 0.0.0.0 is any address of either family, as [::] is: which of them a pod has is not known to who writes its manifest.
int BindAndListen(const addrinfo& target) {
  if (target.ai_family == AF_INET) {
    const auto& ipv4 = reinterpret_cast<const sockaddr_in&>(*target.ai_addr);
    if (ipv4.sin_addr.s_addr == htonl(INADDR_ANY)) {
      sockaddr_in6 any{};
      any.sin6_family = AF_INET6;
      any.sin6_port = ipv4.sin_port;
      const int fd = BindAndListenAt(reinterpret_cast<const sockaddr&>(any), sizeof any);
      if (fd >= 0 || !LacksFamily(errno)) return fd;
    }
  }
  return BindAndListenAt(*target.ai_addr, target.ai_addrlen);
}

uint16_t PortOf(int fd) {
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size);
  return ntohs(PortIn(reinterpret_cast<sockaddr&>(bound)));
}

}  // namespace

absl::StatusOr<ListenSocket> ListenSocket::Open(const ListenAddress& address, absl::string_view flag) {
  const absl::StatusOr<Addresses> addresses = Resolve(address, flag);
  if (!addresses.ok()) return addresses.status();
  const int fd = BindAndListen(**addresses);
  if (fd < 0) return Failed(address, flag, std::strerror(errno));
  return ListenSocket(fd, PortOf(fd));
}

absl::StatusOr<std::vector<ListenSocket>> ListenSocket::OpenAll(const ListenAddress& address, absl::string_view flag) {
  const absl::StatusOr<Addresses> addresses = Resolve(address, flag);
  if (!addresses.ok()) return addresses.status();
  std::vector<ListenSocket> sockets;
  int reason = 0;
  for (addrinfo* target = addresses->get(); target != nullptr; target = target->ai_next) {
    if (!sockets.empty()) PortIn(*target->ai_addr) = htons(sockets[0].port());
    const int fd = BindAndListen(*target);
    if (fd >= 0) {
      sockets.push_back(ListenSocket(fd, PortOf(fd)));
      continue;
    }
    reason = errno;
    // The machine may have no IPv6, though names say so.
    if (!LacksFamily(reason)) return Failed(address, flag, std::strerror(reason));
  }
  if (sockets.empty()) return Failed(address, flag, std::strerror(reason));
  return sockets;
}

ListenSocket::~ListenSocket() {
  if (fd_ >= 0) close(fd_);
}

}  // namespace quire
