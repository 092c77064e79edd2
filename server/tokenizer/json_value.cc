#include "server/tokenizer/json_value.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/json_text.h"

namespace quire {

absl::Status Refused(absl::string_view path, const Json& value, absl::string_view allowed) {
  return absl::InvalidArgumentError(absl::StrCat(path, " is ", Shown(value), "; allowed: ", allowed));
}

absl::Status CheckKeys(const Json& value, absl::string_view path, std::initializer_list<absl::string_view> keys) {
  if (!value.is_object()) {
    return Refused(path, value, "an object");
  }
  for (const auto& item : value.items()) {
    if (std::find(keys.begin(), keys.end(), item.key()) == keys.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, " has ", Quoted(item.key()), "; allowed: ", absl::StrJoin(keys, ", ")));
    }
  }
  return absl::OkStatus();
}

const Json& ValueAt(const Json& object, const std::string& key) {
  static const Json& null = *new Json();  // never destroyed: other threads may outlive main
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

absl::StatusOr<bool> BoolAt(const Json& object, absl::string_view path, const char* key) {
  const Json& value = ValueAt(object, key);
  if (!value.is_boolean()) {
    return Refused(absl::StrCat(path, ".", key), value, "true, false");
  }
  return value.get<bool>();
}

absl::StatusOr<absl::string_view> StringAt(const Json& object, absl::string_view path, const char* key) {
  const Json& value = ValueAt(object, key);
  if (!value.is_string()) {
    return Refused(absl::StrCat(path, ".", key), value, "a string");
  }
  return absl::string_view(value.get_ref<const std::string&>());
}

}  // namespace quire
