#include "server/rpc_server.h"

#include <grpc/grpc.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace quire {
namespace {

constexpr size_t kBufferBytes = size_t{512} << 20;  // of gRPC's own, all connections
constexpr int kMaxSyncThreads = 16;                 // only reflection is served by threads that wait

// Health services beside "", by the names that probes and gateways ask for.
constexpr const char* kServices[] = {"quire.v1.GenerationService", "quire.v1.ModelService",
                                     "vllm.grpc.engine.VllmEngine", "/vllm.grpc.engine.VllmEngine/HealthCheck",
                                     "readiness"};

void Configure(const RpcLimits& limits, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(limits.max_message_bytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, limits.max_metadata_bytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, limits.max_streams_per_connection);
  if (limits.max_connection_age < absl::InfiniteDuration()) {
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS,
                               static_cast<int>(absl::ToInt64Milliseconds(limits.max_connection_age)));
  }
  // gRPC's defaults cut a client that pings every 10 s while its request queues ("too many pings"). Pings towards the
  // client find those that vanished behind a NAT, whose blocks would be held for ever.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 2);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
  grpc::ResourceQuota quota("quired");
  quota.Resize(kBufferBytes);
  quota.SetMaxThreads(kMaxSyncThreads);
  builder.SetResourceQuota(quota);
}

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(const RpcServerOptions& options,
                                                            absl::Span<grpc::Service* const> services) {
  absl::StatusOr<std::vector<ListenSocket>> sockets = ListenSocket::OpenAll(options.address, options.flag);
  if (!sockets.ok()) return sockets.status();
  grpc::EnableDefaultHealthCheckService(true);
  if (options.reflection) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  Configure(options.limits, builder);
  auto credentials = options.credentials != nullptr ? options.credentials : grpc::InsecureServerCredentials();
  std::unique_ptr<Connections> connections = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, std::move(credentials));
  for (grpc::Service* service : services) builder.RegisterService(service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) {
    return absl::InternalError(
        absl::StrCat(options.flag, " ", options.address.ToString(), ": the gRPC server does not start"));
  }
  std::unique_ptr<RpcServer> result(new RpcServer(std::move(server), std::move(connections), (*sockets)[0].port()));
  result->SetReady(false);
  result->SetLive(true);
  result->acceptor_ = std::make_unique<Acceptor>(*std::move(sockets),
                                                 [connections = result->connections_.get()](int listener_fd, int fd) {
                                                   Connections::NewConnectionParameters connection;
                                                   connection.listener_fd = listener_fd;
                                                   connection.fd = fd;
                                                   connections->HandleNewConnection(&connection);
                                                 });
  return result;
}

RpcServer::RpcServer(std::unique_ptr<grpc::Server> server, std::unique_ptr<Connections> connections, uint16_t port)
    : server_(std::move(server)), connections_(std::move(connections)), port_(port) {}

RpcServer::~RpcServer() { Shutdown(absl::ZeroDuration()); }

void RpcServer::SetReady(bool ready) {
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  health->SetServingStatus("", ready);
  for (const char* service : kServices) health->SetServingStatus(service, ready);
}

void RpcServer::SetLive(bool live) { server_->GetHealthCheckService()->SetServingStatus("liveness", live); }

void RpcServer::Shutdown(absl::Duration grace) {
  if (std::exchange(shut_down_, true)) return;
  acceptor_.reset();
  server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  server_->Wait();
}

}  // namespace quire
