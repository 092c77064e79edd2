// Acceptor: takes connections from listening sockets and hands them to a gRPC server.
//
// gRPC could do it itself, but gRPC 1.51 stops listening for good when accept fails once (tcp_server_posix.cc), and it
// fails when the process has no descriptor left: whoever opens enough connections would close the daemon to everybody,
// while it still says that it is ready. Here accept is tried again, and the last descriptors of the process are kept
// for others (the admin listener, files that are read again): a connection that would take one is closed at once.
//
// Owns the sockets and one thread, which calls the sink.

#ifndef QUIRE_SERVER_ACCEPTOR_H_
#define QUIRE_SERVER_ACCEPTOR_H_

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "server/listen_socket.h"

namespace quire {

class Acceptor {
 public:
  // Takes over a connected socket, `fd`, that came from `listener_fd`.
  using Sink = std::function<void(int listener_fd, int fd)>;

  Acceptor(std::vector<ListenSocket> sockets, Sink sink);
  ~Acceptor();  // Stop()
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  // Closes the sockets; after that the sink is not called. Idempotent.
  void Stop();

 private:
  void Run();
  // Accepts what waits at a socket. False: it is better tried again later.
  bool AcceptFrom(int listener_fd);
  void Warn(const std::string& what);

  std::vector<ListenSocket> sockets_;
  const Sink sink_;
  const int bell_;                               // an eventfd: Stop
  absl::Time warned_at_ = absl::InfinitePast();  // of the thread
  std::thread thread_;
};

}  // namespace quire

#endif  // QUIRE_SERVER_ACCEPTOR_H_
