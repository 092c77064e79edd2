// Authenticator: who may call. Every RPC but those of health asks it first; tests/server/authenticator_test.cc holds
// every method that the daemon serves to that.
//
// Thread: any.

#ifndef QUIRE_SERVER_AUTHENTICATOR_H_
#define QUIRE_SERVER_AUTHENTICATOR_H_

#include <grpcpp/server_context.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "quire/v1/generation.pb.h"
#include "server/auth_tokens.h"

namespace quire {

class Authenticator {
 public:
  // Without tokens everybody may call.
  explicit Authenticator(std::unique_ptr<AuthTokens> tokens = nullptr) : tokens_(std::move(tokens)) {}

  // UNAUTHENTICATED unless the call's metadata has "authorization: Bearer TOKEN" with a known token.
  absl::StatusOr<Principal> Check(const grpc::CallbackServerContext& context) const;

 private:
  const std::unique_ptr<AuthTokens> tokens_;
};

// Binds a request to who sent it: PERMISSION_DENIED when it names another tenant or a higher priority than he may; from
// then on it has his tenant.
absl::Status BindToPrincipal(const Principal& principal, v1::GenerateRequest& request);

// The id by which the server knows a request: who has a tenant by his credential can neither take nor cancel an id of
// others.
std::string ScopedRequestId(const Principal& principal, const std::string& request_id);

}  // namespace quire

#endif  // QUIRE_SERVER_AUTHENTICATOR_H_
