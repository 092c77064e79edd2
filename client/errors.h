// A failed RPC in words: the code's name, the message, and what the google.rpc details say.

#ifndef QUIRE_CLIENT_ERRORS_H_
#define QUIRE_CLIENT_ERRORS_H_

#include <optional>
#include <string>

#include "absl/time/time.h"

namespace grpc {
class Status;
}

namespace quire::client {

// "INVALID_ARGUMENT"; a number that gRPC does not know is "CODE_<n>".
std::string CodeName(int code);

// One line, e.g. "INVALID_ARGUMENT: refused (sampling.temperature: must be in [0, 100])". Details that do not decode
// are left out: the trailer is another's word.
std::string Describe(const grpc::Status& status);

// RetryInfo's delay, if the server sent one.
std::optional<absl::Duration> RetryDelay(const grpc::Status& status);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_ERRORS_H_
