#include "client/channel.h"

#include <grpc/grpc.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/parse.h"

namespace quire::client {
namespace {

// "host:port", "[ipv6]:port" or a URI that gRPC resolves ("unix:/path", "dns:///host:port").
absl::Status CheckTarget(const std::string& target) {
  const size_t colon = target.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == target.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--target '", target, "' is no address; allowed: HOST:PORT, e.g. 127.0.0.1:50051"));
  }
  // gRPC takes a port modulo 65536.
  const absl::string_view port = absl::string_view(target).substr(colon + 1);
  if (uint64_t number; absl::SimpleAtoi(port, &number) && number > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("--target '", target, "' has port ", port, "; allowed: to 65535"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadOptional(const std::string& path) {
  return path.empty() ? absl::StatusOr<std::string>("") : ReadFile(path);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeCredentials(const ConnectionOptions& options) {
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    return absl::InvalidArgumentError("--tls-cert and --tls-key go together: give both or neither");
  }
  if (!options.tls && options.tls_ca.empty() && options.tls_cert.empty()) {
    return grpc::InsecureChannelCredentials();
  }
  grpc::SslCredentialsOptions ssl;
  for (auto [path, content] :
       {std::pair(&options.tls_ca, &ssl.pem_root_certs), std::pair(&options.tls_cert, &ssl.pem_cert_chain),
        std::pair(&options.tls_key, &ssl.pem_private_key)}) {
    absl::StatusOr<std::string> read = ReadOptional(*path);
    if (!read.ok()) {
      return read.status();
    }
    *content = *std::move(read);
  }
  return grpc::SslCredentials(ssl);
}

grpc::ChannelArguments MakeArguments() {
  grpc::ChannelArguments arguments;
  // The server's answers stay below 4 MiB each by contract; Tokenize's may be larger.
  arguments.SetMaxReceiveMessageSize(64 << 20);
  // Also the longest time that one attempt to connect may take: nobody at the address is known in seconds.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 3000);
  // A refusal is shown, and counted by `quire load`; it is not hidden by trying again.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // Each Connection is a connection of its own, also to the same target.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // The daemon is reached directly: a proxy of the environment is for the web.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return arguments;
}

}  // namespace

absl::StatusOr<std::string> ReadToken(const std::string& path) {
  absl::StatusOr<std::string> content = ReadOptional(path);
  if (!content.ok() || path.empty()) {
    return content;
  }
  for (absl::string_view line : absl::StrSplit(*content, '\n')) {
    const std::vector<absl::string_view> words = absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (!words.empty() && words[0][0] != '#') {
      return std::string(words[0]);
    }
  }
  return absl::InvalidArgumentError(absl::StrCat("--token-file ", path, " has no token; want one on a line"));
}

absl::StatusOr<Connection> Connection::Create(const ConnectionOptions& options) {
  if (absl::Status checked = CheckTarget(options.target); !checked.ok()) {
    return checked;
  }
  absl::StatusOr<std::string> token = ReadToken(options.token_file);
  if (!token.ok()) {
    return token.status();
  }
  absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> credentials = MakeCredentials(options);
  if (!credentials.ok()) {
    return credentials.status();
  }
  return Connection(options, grpc::CreateCustomChannel(options.target, *credentials, MakeArguments()),
                    *std::move(token));
}

Connection::Connection(ConnectionOptions options, std::shared_ptr<grpc::Channel> channel, std::string token)
    : options_(std::move(options)), channel_(std::move(channel)), token_(std::move(token)) {}

void Connection::Prepare(grpc::ClientContext& context) const {
  if (!token_.empty()) {
    context.AddMetadata("authorization", absl::StrCat("Bearer ", token_));
  }
  if (options_.timeout.has_value()) {
    context.set_deadline(absl::ToChronoTime(absl::Now() + *options_.timeout));
  }
}

}  // namespace quire::client
