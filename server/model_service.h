// ModelService: tells what is served.
//
// Thread: any.

#ifndef QUIRE_SERVER_MODEL_SERVICE_H_
#define QUIRE_SERVER_MODEL_SERVICE_H_

#include <utility>

#include "quire/v1/model.grpc.pb.h"
#include "server/authenticator.h"
#include "server/rpc_message.h"

namespace quire {

class ModelService final : public v1::ModelService::CallbackService {
 public:
  // `authenticator` outlives it; nullptr: everybody may call.
  explicit ModelService(v1::GetModelResponse model, const Authenticator* authenticator = nullptr)
      : model_(std::move(model)), authenticator_(authenticator) {}

  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const v1::GetModelRequest*,
                                     v1::GetModelResponse* response) override {
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    const absl::Status status = authenticator_ == nullptr ? absl::OkStatus() : authenticator_->Check(*context).status();
    if (status.ok()) *response = model_;
    reactor->Finish(ToGrpcStatus(status));
    return reactor;
  }

 private:
  const v1::GetModelResponse model_;
  const Authenticator* const authenticator_;
};

}  // namespace quire

#endif  // QUIRE_SERVER_MODEL_SERVICE_H_
