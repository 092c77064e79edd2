#include "client/chat.h"

#include <grpcpp/client_context.h>

#include <utility>

#include "client/errors.h"
#include "client/generate.h"
#include "client/output.h"
#include "client/parse.h"

namespace quire::client {
namespace {

void AddMessage(const char* role, std::string content, v1::GenerateRequest& request) {
  v1::ChatMessage* message = request.mutable_chat()->add_messages();
  message->set_role(role);
  message->set_content(std::move(content));
}

bool ReadTurn(Io& io, std::string& line) {
  if (io.out_is_terminal) {
    io.out << "> " << std::flush;
  }
  return static_cast<bool>(std::getline(io.in, line));
}

// Sends the conversation and prints the answer while it comes; `answer` has it whole.
grpc::Status Answer(const Connection& connection, const v1::GenerateRequest& request, Io& io, std::string& answer) {
  grpc::ClientContext context;
  TextPrinter printer(/*labelled=*/false, io.out);
  grpc::Status status = StreamGenerate(connection, request, context, [&](const v1::GenerateResponse& response) {
    answer += response.delta().text();
    printer.Print(response);
  });
  printer.Finish();
  return status;
}

}  // namespace

int RunChat(const ChatOptions& options, Io& io) {
  absl::StatusOr<Connection> connection = Connection::Create(options.connection);
  if (!connection.ok()) {
    io.err << "quire: " << connection.status().message() << '\n';
    return kExitUsage;
  }
  v1::GenerateRequest request = options.request;
  request.set_model(options.connection.model);
  if (!options.system.empty()) {
    AddMessage("system", options.system, request);
  }
  for (std::string line; ReadTurn(io, line);) {
    if (absl::Status checked = CheckUtf8("the line", line); !checked.ok()) {
      io.err << "quire: " << checked.message() << '\n';
      return kExitUsage;
    }
    AddMessage("user", line, request);
    std::string answer;
    const grpc::Status status = Answer(*connection, request, io, answer);
    if (!status.ok()) {
      io.err << "quire: " << Describe(status) << '\n';
      return kExitRpcFailed;
    }
    AddMessage("assistant", std::move(answer), request);
  }
  return kExitOk;
}

}  // namespace quire::client
