#include "client/generate.h"

#include <google/protobuf/util/json_util.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/sync_stream.h>

#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/errors.h"
#include "client/interrupt.h"
#include "client/output.h"
#include "client/parse.h"
#include "quire/v1/generation.grpc.pb.h"

namespace quire::client {
namespace {

// Fills in the prompt and the model, and checks what cannot travel.
absl::StatusOr<v1::GenerateRequest> MakeRequest(const GenerateOptions& options, Io& io) {
  v1::GenerateRequest request = options.request;
  request.set_model(options.connection.model);
  if (options.prompt_ids.has_value()) {
    absl::StatusOr<std::vector<uint32_t>> ids = ParseTokenIds(*options.prompt_ids);
    if (!ids.ok()) {
      return ids.status();
    }
    request.mutable_tokens()->mutable_ids()->Add(ids->begin(), ids->end());
    return request;
  }
  std::string text;
  if (options.prompt.has_value()) {
    text = *options.prompt;
  } else if (options.prompt_file.has_value()) {
    absl::StatusOr<std::string> content = ReadFile(*options.prompt_file);
    if (!content.ok()) {
      return content.status();
    }
    text = *std::move(content);
  } else {
    text.assign(std::istreambuf_iterator<char>(io.in), {});
  }
  if (absl::Status checked = CheckUtf8("the prompt", text); !checked.ok()) {
    return checked;
  }
  request.set_text(std::move(text));
  return request;
}

void PrintJson(const google::protobuf::Message& message, std::ostream& out) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string line;
  if (google::protobuf::util::MessageToJsonString(message, &line, options).ok()) {
    out << line << '\n' << std::flush;
  }
}

}  // namespace

grpc::Status StreamGenerate(const Connection& connection, const v1::GenerateRequest& request,
                            grpc::ClientContext& context,
                            const std::function<void(const v1::GenerateResponse&)>& on_response) {
  connection.Prepare(context);
  const auto stub = v1::GenerationService::NewStub(connection.channel());
  const auto reader = stub->Generate(&context, request);
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    on_response(response);
  }
  return reader->Finish();
}

int RunGenerate(const GenerateOptions& options, Io& io) {
  absl::StatusOr<v1::GenerateRequest> request = MakeRequest(options, io);
  if (!request.ok()) {
    io.err << "quire: " << request.status().message() << '\n';
    return kExitUsage;
  }
  Interrupt interrupt;
  absl::StatusOr<Connection> connection = Connection::Create(options.connection);
  if (!connection.ok()) {
    io.err << "quire: " << connection.status().message() << '\n';
    return kExitUsage;
  }
  Summary summary(absl::Now());
  TextPrinter printer(request->n() > 1, io.out);
  grpc::ClientContext context;
  interrupt.SetHandler([&context] { context.TryCancel(); });
  const grpc::Status status = StreamGenerate(*connection, *request, context, [&](const v1::GenerateResponse& response) {
    summary.Add(response, absl::Now());
    if (options.json) {
      PrintJson(response, io.out);
    } else {
      printer.Print(response);
    }
  });
  interrupt.SetHandler(nullptr);
  printer.Finish();
  if (!status.ok()) {
    io.err << "quire: " << Describe(status) << '\n';
    return interrupt.raised() ? kExitInterrupted : kExitRpcFailed;
  }
  io.err << "quire: " << summary.Line() << '\n';
  return kExitOk;
}

}  // namespace quire::client
