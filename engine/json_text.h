// JSON from files that nobody vouches for: bounded in size and depth, without repeated keys, and errors in one line.

#ifndef QUIRE_ENGINE_JSON_TEXT_H_
#define QUIRE_ENGINE_JSON_TEXT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace quire {

// The whole file. NOT_FOUND, or INVALID_ARGUMENT where it is no regular file or longer than `max_bytes`.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, uint64_t max_bytes);

// A number with a fraction or an exponent from its text.
using ReadFloat = double (*)(absl::string_view text);

// Parses an object. INVALID_ARGUMENT, beginning with `name`, where `text` is not JSON, no object, nested more than 64
// deep or repeats a key. Numbers are the nearest doubles, or what `read_float` makes of them.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, absl::string_view name,
                                               ReadFloat read_float = nullptr);

// Text of unknown origin as a message may show it: in quotes, escaped, cut to 80 bytes.
std::string Quoted(absl::string_view text);

// A JSON value likewise: numbers and short texts as they are, containers by kind.
std::string Shown(const nlohmann::json& value);

}  // namespace quire

#endif  // QUIRE_ENGINE_JSON_TEXT_H_
