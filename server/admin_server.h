// AdminServer: plaintext HTTP for probes and Prometheus. Read-only, and it carries no request data.
//
//   /metrics          the page of server/metrics.h
//   /livez            200 while the process can make progress
//   /readyz, /health  200 while requests are taken, 503 otherwise
//
// One thread of libmicrohttpd serves all connections; connections, their memory and their idle time are bounded.

#ifndef QUIRE_SERVER_ADMIN_SERVER_H_
#define QUIRE_SERVER_ADMIN_SERVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/flag_values.h"

struct MHD_Daemon;

namespace quire {

class AdminServer {
 public:
  // Called on the server's thread; none may wait.
  struct Pages {
    std::function<std::string()> metrics;
    std::function<bool()> live;
    std::function<bool()> ready;
  };

  // Errors name --admin-listen.
  static absl::StatusOr<std::unique_ptr<AdminServer>> Start(const ListenAddress& address, Pages pages);
  ~AdminServer();

  uint16_t port() const { return port_; }

  struct Page {
    unsigned status;
    std::string content_type;
    std::string body;
  };
  // What a request for `path` is answered. Exposed for the handler and tests.
  static Page Answer(const Pages& pages, const std::string& method, const std::string& path);
  const Pages& pages() const { return pages_; }

 private:
  AdminServer(Pages pages, uint16_t port) : pages_(std::move(pages)), port_(port) {}

  const Pages pages_;
  const uint16_t port_;
  MHD_Daemon* daemon_ = nullptr;
};

}  // namespace quire

#endif  // QUIRE_SERVER_ADMIN_SERVER_H_
