#include "server/authenticator.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace quire {

absl::StatusOr<Principal> Authenticator::Check(const grpc::CallbackServerContext& context) const {
  if (tokens_ == nullptr) return Principal{};
  constexpr absl::string_view kScheme = "bearer ";
  const auto [begin, end] = context.client_metadata().equal_range("authorization");
  if (begin == end || std::next(begin) != end) {
    return absl::UnauthenticatedError("the call needs one 'authorization: Bearer TOKEN' in its metadata");
  }
  const absl::string_view value(begin->second.data(), begin->second.size());
  if (!absl::StartsWithIgnoreCase(value, kScheme)) {
    return absl::UnauthenticatedError("the call's authorization is not of the form 'Bearer TOKEN'");
  }
  std::optional<Principal> principal = tokens_->Find(absl::StripAsciiWhitespace(value.substr(kScheme.size())));
  if (!principal) return absl::UnauthenticatedError("the bearer token is not known here");
  return *std::move(principal);
}

absl::Status BindToPrincipal(const Principal& principal, v1::GenerateRequest& request) {
  if (principal.tenant) {
    const std::string& named = request.scheduling().tenant();
    if (!named.empty() && named != *principal.tenant) {
      return absl::PermissionDeniedError("scheduling.tenant is not the tenant of the bearer token; leave it out");
    }
    request.mutable_scheduling()->set_tenant(*principal.tenant);
  }
  if (principal.max_priority && request.scheduling().has_priority() &&
      request.scheduling().priority() < *principal.max_priority) {
    return absl::PermissionDeniedError(absl::StrCat("scheduling.priority: found ", request.scheduling().priority(),
                                                    ", allowed for the bearer token: ", *principal.max_priority,
                                                    " and above (lower runs first)"));
  }
  return absl::OkStatus();
}

std::string ScopedRequestId(const Principal& principal, const std::string& request_id) {
  // Neither half holds a newline: both are printable.
  return principal.tenant ? absl::StrCat(*principal.tenant, "\n", request_id) : request_id;
}

}  // namespace quire
