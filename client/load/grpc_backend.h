// The backends over gRPC: quire.v1, and vLLM's dialect vllm.grpc.engine.VllmEngine.

#ifndef QUIRE_CLIENT_LOAD_GRPC_BACKEND_H_
#define QUIRE_CLIENT_LOAD_GRPC_BACKEND_H_

#include <memory>

#include "absl/status/statusor.h"
#include "client/channel.h"
#include "client/load/backend.h"

namespace quire::client {

// Streams take `num_connections` connections in turn. Errors: the options.
absl::StatusOr<std::unique_ptr<Backend>> MakeQuireBackend(const ConnectionOptions& options, uint32_t num_connections);
absl::StatusOr<std::unique_ptr<Backend>> MakeVllmBackend(const ConnectionOptions& options, uint32_t num_connections);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_GRPC_BACKEND_H_
