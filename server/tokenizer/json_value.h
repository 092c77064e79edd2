// Reading a JSON document strictly: what is missing, of another type or unknown becomes a Status that names it.
//
// `path` is the value's place in its document as errors say it, "model.merges[3]".
//
// Thread: functions of their arguments; any thread.

#ifndef QUIRE_SERVER_TOKENIZER_JSON_VALUE_H_
#define QUIRE_SERVER_TOKENIZER_JSON_VALUE_H_

#include <initializer_list>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace quire {

using Json = nlohmann::json;

// "PATH is VALUE; allowed: ALLOWED".
absl::Status Refused(absl::string_view path, const Json& value, absl::string_view allowed);

// An error unless `value` is an object that has no keys but `keys`.
absl::Status CheckKeys(const Json& value, absl::string_view path, std::initializer_list<absl::string_view> keys);

// object[key], null if there is none. REQUIRES: `object` is an object.
const Json& ValueAt(const Json& object, const std::string& key);

// object[key] as a boolean or a string; an error if it is missing or of another type. REQUIRES: `object` is an object.
absl::StatusOr<bool> BoolAt(const Json& object, absl::string_view path, const char* key);
absl::StatusOr<absl::string_view> StringAt(const Json& object, absl::string_view path, const char* key);

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_JSON_VALUE_H_
