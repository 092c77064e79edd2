// Errors that a client sees: absl::Status with google.rpc details as payloads, keyed by their type URL as Abseil
// intends.
//
// They are made where the fault is found and become a gRPC status at the edge (server/rpc_message.h). Texts come from
// here and from validation: they name fields, values and limits, never paths, addresses or a library's words.
//
// Thread: functions of their arguments.

#ifndef QUIRE_SERVER_ERRORS_H_
#define QUIRE_SERVER_ERRORS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace quire {

struct FieldViolation {
  std::string field;        // path in the request: "tokens.ids[3]"
  std::string description;  // what was found and what is allowed
};

// INVALID_ARGUMENT with BadRequest. REQUIRES: at least one violation.
absl::Status InvalidFields(const std::vector<FieldViolation>& violations);
absl::Status InvalidField(absl::string_view field, absl::string_view description);

// The same error for a client who calls its fields otherwise: `name_of` gives his name of each.
absl::Status WithFieldNames(const absl::Status& status, std::string (*name_of)(absl::string_view field));

// UNIMPLEMENTED with ErrorInfo UNSUPPORTED_PARAMETER, which names the field: this build or model cannot do it.
absl::Status NotSupported(absl::string_view field, absl::string_view message);

// DEADLINE_EXCEEDED with ErrorInfo: QUEUE_TIME_EXCEEDED, DEADLINE_UNREACHABLE.
absl::Status DeadlineExceeded(absl::string_view reason, absl::string_view message);

// RESOURCE_EXHAUSTED or UNAVAILABLE with RetryInfo.
absl::Status TryLater(absl::StatusCode code, absl::string_view message, absl::Duration retry_delay);

}  // namespace quire

#endif  // QUIRE_SERVER_ERRORS_H_
