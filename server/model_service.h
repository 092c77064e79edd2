// ModelService: tells what is served.
//
// Thread: any.

#ifndef QUIRE_SERVER_MODEL_SERVICE_H_
#define QUIRE_SERVER_MODEL_SERVICE_H_

#include <utility>

#include "quire/v1/model.grpc.pb.h"

namespace quire {

class ModelService final : public v1::ModelService::CallbackService {
 public:
  explicit ModelService(v1::GetModelResponse model) : model_(std::move(model)) {}

  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const v1::GetModelRequest*,
                                     v1::GetModelResponse* response) override {
    *response = model_;
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  const v1::GetModelResponse model_;
};

}  // namespace quire

#endif  // QUIRE_SERVER_MODEL_SERVICE_H_
