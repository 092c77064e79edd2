#include "server/tokenizer/json_value.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace quire {
namespace {

// The depth of brackets in `text`, or more than `max_depth` once that is passed. Exact for valid JSON.
int Depth(absl::string_view text, int max_depth) {
  int depth = 0, deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size() && deepest <= max_depth; ++i) {
    const char c = text[i];
    if (in_string) {
      in_string = c != '"';
      i += c == '\\' ? 1 : 0;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

}  // namespace

absl::StatusOr<Json> ParseJson(absl::string_view text, int max_depth) {
  if (Depth(text, max_depth) > max_depth) {
    return absl::InvalidArgumentError(absl::StrCat("is nested deeper than ", max_depth, " levels"));
  }
  try {
    return Json::parse(text.begin(), text.end());
  } catch (const Json::parse_error& error) {
    return absl::InvalidArgumentError(absl::StrCat("is not valid JSON at byte ", error.byte));
  } catch (const Json::exception&) {  // a number beyond double
    return absl::InvalidArgumentError("is not valid JSON: it has a number out of range");
  }
}

std::string JsonExcerpt(const Json& value) {
  constexpr size_t kMaxShown = 80;
  if (value.is_object()) {
    return "an object";
  }
  if (value.is_array()) {
    return "an array";
  }
  std::string shown = value.dump(-1, ' ', /*ensure_ascii=*/true);
  if (shown.size() > kMaxShown) {
    shown = absl::StrCat(shown.substr(0, kMaxShown), "...");
  }
  return shown;
}

absl::Status Refused(absl::string_view path, const Json& value, absl::string_view allowed) {
  return absl::InvalidArgumentError(absl::StrCat(path, " is ", JsonExcerpt(value), "; allowed: ", allowed));
}

absl::Status CheckKeys(const Json& value, absl::string_view path, std::initializer_list<absl::string_view> keys) {
  if (!value.is_object()) {
    return Refused(path, value, "an object");
  }
  for (const auto& item : value.items()) {
    if (std::find(keys.begin(), keys.end(), item.key()) == keys.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, " has ", JsonExcerpt(item.key()), "; allowed: ", absl::StrJoin(keys, ", ")));
    }
  }
  return absl::OkStatus();
}

const Json& ValueAt(const Json& object, const std::string& key) {
  static const Json null;
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
