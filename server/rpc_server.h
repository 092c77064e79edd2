// RpcServer: the gRPC listener with its settings, health and reflection. Connections come from an Acceptor.

#ifndef QUIRE_SERVER_RPC_SERVER_H_
#define QUIRE_SERVER_RPC_SERVER_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/acceptor.h"
#include "server/flag_values.h"

namespace grpc {
class Server;
class ServerCredentials;
class Service;
namespace experimental {
class ExternalConnectionAcceptor;
}  // namespace experimental
}  // namespace grpc

namespace quire {

// What a connection may cost before a request is looked at.
struct RpcLimits {
  int max_message_bytes = 16 << 20;
  int max_metadata_bytes = 8 << 10;
  int max_streams_per_connection = 1000;  // open at once; more wait in the client
  // A connection is asked to end after this long (give or take a tenth) and may finish its calls: clients that balance
  // for themselves find new replicas only when they connect anew (gRFC A9).
  absl::Duration max_connection_age = absl::InfiniteDuration();
};

struct RpcServerOptions {
  ListenAddress address;
  absl::string_view flag = "--listen";  // what errors call the address
  bool reflection = false;
  std::shared_ptr<grpc::ServerCredentials> credentials = nullptr;  // none: plaintext
  RpcLimits limits = {};
};

class RpcServer {
 public:
  // Serves `services`, which must outlive it, and health, which says NOT_SERVING until SetReady.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const RpcServerOptions& options,
                                                          absl::Span<grpc::Service* const> services);
  ~RpcServer();  // Shutdown(0)

  uint16_t port() const { return port_; }

  // What grpc.health.v1 says: of the server, its services and "readiness"; and of "liveness".
  void SetReady(bool ready);
  void SetLive(bool live);

  // Takes no more calls, gives those under way `grace`, then cuts them. Every Generate call must end by itself when it
  // is cut. Idempotent.
  void Shutdown(absl::Duration grace);

 private:
  using Connections = grpc::experimental::ExternalConnectionAcceptor;  // gRPC's name for what it gets them from

  RpcServer(std::unique_ptr<grpc::Server> server, std::unique_ptr<Connections> connections, uint16_t port);

  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Connections> connections_;
  std::unique_ptr<Acceptor> acceptor_;
  const uint16_t port_;
  bool shut_down_ = false;
};

}  // namespace quire

#endif  // QUIRE_SERVER_RPC_SERVER_H_
