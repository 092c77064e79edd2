#include "client/model.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include "absl/strings/str_cat.h"
#include "quire/v1/model.grpc.pb.h"

namespace quire::client {

grpc::Status GetModel(const Connection& connection, v1::GetModelResponse* model) {
  grpc::ClientContext context;
  connection.Prepare(context);
  const grpc::Status status =
      v1::ModelService::NewStub(connection.channel())->GetModel(&context, v1::GetModelRequest(), model);
  const std::string& want = connection.options().model;
  if (status.ok() && !want.empty() && want != model->name()) {
    return grpc::Status(grpc::StatusCode::NOT_FOUND,
                        absl::StrCat("model '", want, "' is not served here; '", model->name(), "' is"));
  }
  return status;
}

grpc::Status CheckModel(const Connection& connection) {
  v1::GetModelResponse model;
  return connection.options().model.empty() ? grpc::Status::OK : GetModel(connection, &model);
}

}  // namespace quire::client
