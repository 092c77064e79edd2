// Asks a daemon what it serves.

#ifndef QUIRE_CLIENT_MODEL_H_
#define QUIRE_CLIENT_MODEL_H_

#include <grpcpp/support/status.h>

#include "client/channel.h"
#include "quire/v1/model.pb.h"

namespace quire::client {

// GetModel. With --model, a server that serves another is NOT_FOUND, as Generate would answer.
grpc::Status GetModel(const Connection& connection, v1::GetModelResponse* model);

// OK without a call if no --model was given: for RPCs whose request does not name the model.
grpc::Status CheckModel(const Connection& connection);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_MODEL_H_
