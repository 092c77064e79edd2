// grpc.health.v1.Health/Check, the standard health protocol.

#ifndef QUIRE_CLIENT_HEALTH_H_
#define QUIRE_CLIENT_HEALTH_H_

#include <grpcpp/support/status.h>

#include <string>

#include "client/channel.h"

namespace quire::client {

// Asks for the health of the whole server. On OK, `*serving` is "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN" or
// "UNKNOWN".
grpc::Status CheckHealth(const Connection& connection, std::string* serving);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_HEALTH_H_
