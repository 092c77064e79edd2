// The connections of a gRPC backend and a stub on each; streams take them in turn.

#ifndef QUIRE_CLIENT_LOAD_GRPC_CHANNELS_H_
#define QUIRE_CLIENT_LOAD_GRPC_CHANNELS_H_

#include <grpcpp/channel.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/channel.h"
#include "client/load/backend.h"

namespace quire::client {

class GrpcChannels {
 public:
  static absl::StatusOr<GrpcChannels> Create(const ConnectionOptions& options, uint32_t count) {
    GrpcChannels channels;
    for (uint32_t i = 0; i < count; ++i) {
      absl::StatusOr<Connection> connection = Connection::Create(options);
      if (!connection.ok()) {
        return connection.status();
      }
      channels.connections_.push_back(*std::move(connection));
    }
    return channels;
  }

  void WaitForFirst(absl::Duration timeout) const {
    if (timeout > absl::ZeroDuration()) {
      first().channel()->WaitForConnected(absl::ToChronoTime(absl::Now() + timeout));
    }
  }

  const Connection& first() const { return connections_.front(); }
  const Connection& operator[](size_t i) const { return connections_[i]; }
  size_t size() const { return connections_.size(); }

 private:
  std::vector<Connection> connections_;
};

template <typename Service>
class GrpcStubs {
 public:
  explicit GrpcStubs(const GrpcChannels& channels) {
    for (size_t i = 0; i < channels.size(); ++i) {
      stubs_.push_back(Service::NewStub(channels[i].channel()));
    }
  }

  typename Service::Stub& first() const { return *stubs_.front(); }
  typename Service::Stub& operator[](size_t i) const { return *stubs_[i]; }
  size_t NextTurn() { return turn_++ % stubs_.size(); }

 private:
  std::vector<std::unique_ptr<typename Service::Stub>> stubs_;
  size_t turn_ = 0;
};

// Why the server's count of prompt tokens cannot be right; empty if it may be.
inline std::string PromptCountError(const v1::GenerateRequest& request, const Usage& usage) {
  const uint32_t sent = request.tokens().ids_size();
  if (!request.has_tokens() || usage.prompt_tokens == sent) {
    return "";
  }
  return absl::StrCat("usage.prompt_tokens is ", usage.prompt_tokens, ", but ", sent, " token ids were sent");
}

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_GRPC_CHANNELS_H_
