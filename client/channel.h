// A connection to one daemon: its channel, and what every call on it carries (bearer token, deadline).
//
// Immutable after Create; any thread may use it.

#ifndef QUIRE_CLIENT_CHANNEL_H_
#define QUIRE_CLIENT_CHANNEL_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace grpc {
class Channel;
class ClientContext;
}  // namespace grpc

namespace quire::client {

struct ConnectionOptions {
  std::string target = "127.0.0.1:50051";
  // TLS is on if any of these is given; without tls_ca the system's authorities are trusted. tls_cert and tls_key,
  // together, are the client's own certificate (mutual TLS).
  bool tls = false;
  std::string tls_ca, tls_cert, tls_key;
  // The first token of this file is sent as "authorization: Bearer TOKEN"; blank lines, # lines and what follows it are
  // skipped.
  std::string token_file;
  // Name of the served model; empty: whichever it is.
  std::string model;
  // Each call's deadline; absent: none.
  std::optional<absl::Duration> timeout;
};

// The first token of a file as ConnectionOptions::token_file says; empty if `path` is.
absl::StatusOr<std::string> ReadToken(const std::string& path);

class Connection {
 public:
  // Reads the files; does not connect yet (gRPC does at the first call, and fails it if nobody listens).
  static absl::StatusOr<Connection> Create(const ConnectionOptions& options);

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  const ConnectionOptions& options() const { return options_; }

  // Gives a new call its token and its deadline.
  void Prepare(grpc::ClientContext& context) const;

 private:
  Connection(ConnectionOptions options, std::shared_ptr<grpc::Channel> channel, std::string token);

  ConnectionOptions options_;
  std::shared_ptr<grpc::Channel> channel_;
  std::string token_;
};

}  // namespace quire::client

#endif  // QUIRE_CLIENT_CHANNEL_H_
