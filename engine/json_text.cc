#include "engine/json_text.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace quire {
namespace {

constexpr int kMaxDepth = 64;

// Deepest nesting of brackets outside of strings. Exact for JSON; for other text it does not matter.
int Depth(absl::string_view text) {
  int depth = 0, deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
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

absl::StatusOr<std::string> ReadTextFile(const std::string& path, uint64_t max_bytes) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    return absl::NotFoundError(absl::StrCat(path, ": ", std::strerror(errno)));
  }
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, ": found no regular file"));
  if (static_cast<uint64_t>(info.st_size) > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": found ", info.st_size, " bytes, allowed at most ", max_bytes));
  }
  std::string text(static_cast<size_t>(info.st_size), '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file && !text.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be read"));
  return text;
}

absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, absl::string_view name) {
  if (const int depth = Depth(text); depth > kMaxDepth) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": found brackets nested ", depth, " deep, allowed ", kMaxDepth));
  }
  using nlohmann::json;
  std::vector<std::set<std::string>> open_objects;  // keys seen so far of each
  std::string repeated;
  const auto note_keys = [&](int /*depth*/, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) open_objects.emplace_back();
    if (event == json::parse_event_t::object_end) open_objects.pop_back();
    if (event == json::parse_event_t::key && !open_objects.back().insert(parsed.get<std::string>()).second) {
      repeated = parsed.get<std::string>();
    }
    return true;
  };
  json value;
  try {  // the library reports where it stopped only by exception
    value = json::parse(text.begin(), text.end(), note_keys);
  } catch (const json::parse_error& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": found no JSON: stopped at byte ", error.byte, " of ", text.size()));
  } catch (const json::exception&) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": found a number outside the range of a double"));
  }
  if (!repeated.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": found key ", Quoted(repeated), " twice, allowed once"));
  }
  if (!value.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": found a JSON ", value.type_name(), ", allowed: an object"));
  }
  return value;
}

std::string Quoted(absl::string_view text) {
  constexpr size_t kShown = 80;
  return absl::StrCat("\"", absl::CHexEscape(text.substr(0, kShown)), text.size() > kShown ? "...\"" : "\"");
}

std::string Shown(const nlohmann::json& value) {
  if (value.is_string()) return Quoted(value.get_ref<const std::string&>());
  if (value.is_structured()) return absl::StrCat("an ", value.type_name());
  return value.dump();
}

}  // namespace quire
