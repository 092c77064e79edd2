#include "client/tokenize.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <iterator>
#include <utility>

#include "absl/strings/str_join.h"
#include "client/errors.h"
#include "client/model.h"
#include "client/parse.h"
#include "quire/v1/generation.grpc.pb.h"

namespace quire::client {
namespace {

std::string ReadAll(std::istream& in) { return std::string(std::istreambuf_iterator<char>(in), {}); }

int UsageError(const absl::Status& status, Io& io) {
  io.err << "quire: " << status.message() << '\n';
  return kExitUsage;
}

int RpcError(const grpc::Status& status, Io& io) {
  io.err << "quire: " << Describe(status) << '\n';
  return kExitRpcFailed;
}

}  // namespace

int RunTokenize(const TokenizeOptions& options, Io& io) {
  v1::TokenizeRequest request;
  request.set_text(options.prompt.has_value() ? *options.prompt : ReadAll(io.in));
  request.set_add_special_tokens(options.add_special_tokens);
  if (absl::Status checked = CheckUtf8("the text", request.text()); !checked.ok()) {
    return UsageError(checked, io);
  }
  absl::StatusOr<Connection> connection = Connection::Create(options.connection);
  if (!connection.ok()) {
    return UsageError(connection.status(), io);
  }
  grpc::ClientContext context;
  connection->Prepare(context);
  v1::TokenizeResponse response;
  grpc::Status status = CheckModel(*connection);
  if (status.ok()) {
    status = v1::GenerationService::NewStub(connection->channel())->Tokenize(&context, request, &response);
  }
  if (!status.ok()) {
    return RpcError(status, io);
  }
  io.out << '[' << absl::StrJoin(response.ids(), ", ") << "]\n" << std::flush;
  return kExitOk;
}

int RunDetokenize(const DetokenizeOptions& options, Io& io) {
  absl::StatusOr<std::vector<uint32_t>> ids = ParseTokenIds(options.ids.has_value() ? *options.ids : ReadAll(io.in));
  if (!ids.ok()) {
    return UsageError(ids.status(), io);
  }
  absl::StatusOr<Connection> connection = Connection::Create(options.connection);
  if (!connection.ok()) {
    return UsageError(connection.status(), io);
  }
  v1::DetokenizeRequest request;
  request.mutable_ids()->Add(ids->begin(), ids->end());
  request.set_skip_special_tokens(options.skip_special_tokens);
  grpc::ClientContext context;
  connection->Prepare(context);
  v1::DetokenizeResponse response;
  grpc::Status status = CheckModel(*connection);
  if (status.ok()) {
    status = v1::GenerationService::NewStub(connection->channel())->Detokenize(&context, request, &response);
  }
  if (!status.ok()) {
    return RpcError(status, io);
  }
  const std::string& text = response.text();
  io.out << text << (text.empty() || text.back() != '\n' ? "\n" : "") << std::flush;
  return kExitOk;
}

}  // namespace quire::client
