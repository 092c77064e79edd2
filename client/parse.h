// Values of flags and of standard input, from text. Every error names what was found and what is allowed.

#ifndef QUIRE_CLIENT_PARSE_H_
#define QUIRE_CLIENT_PARSE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace quire::client {

// "250ms", "5s", "1m30s": positive and finite.
absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text);

// "1,2,3" or a JSON array of the same; white space is skipped, an empty list is not allowed.
absl::StatusOr<std::vector<uint32_t>> ParseTokenIds(absl::string_view text);

// "ID=BIAS", e.g. "42=-1.5".
absl::StatusOr<std::pair<uint32_t, float>> ParseLogitBias(absl::string_view text);

// OK if `text` is well-formed UTF-8 (RFC 3629): a proto string must be. `what` names it in the message.
absl::Status CheckUtf8(absl::string_view what, absl::string_view text);

// The whole file, byte for byte.
absl::StatusOr<std::string> ReadFile(const std::string& path);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_PARSE_H_
