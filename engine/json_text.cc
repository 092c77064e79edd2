#include "engine/json_text.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>
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

// Builds a document from the parser's events. An object that a key is stored in tells at once whether it had the key,
// so that large objects (vocabularies) need no second set of their keys.
class DocumentBuilder {
 public:
  using json = nlohmann::json;

  DocumentBuilder(json& root, ReadFloat read_float) : root_(root), read_float_(read_float) {}

  bool null() { return Add(nullptr); }
  bool boolean(bool value) { return Add(value); }
  bool number_integer(json::number_integer_t value) { return Add(value); }
  bool number_unsigned(json::number_unsigned_t value) { return Add(value); }
  bool number_float(json::number_float_t value, const std::string& text) {
    return Add(read_float_ == nullptr ? value : read_float_(text));
  }
  bool string(std::string& value) { return Add(std::move(value)); }
  bool binary(json::binary_t& /*value*/) { return false; }  // JSON has none
  bool start_object(size_t /*size*/) { return Open(json::object()); }
  bool start_array(size_t /*size*/) { return Open(json::array()); }
  bool end_object() { return Close(); }
  bool end_array() { return Close(); }

  bool key(std::string& key) {
    const auto [entry, is_new] = open_.back()->get_ref<json::object_t&>().try_emplace(std::move(key));
    if (!is_new) error_ = absl::StrCat("found key ", Quoted(entry->first), " twice, allowed once");
    value_ = &entry->second;
    return is_new;
  }

  bool parse_error(size_t position, const std::string& /*token*/, const json::exception& error) {
    if (dynamic_cast<const json::parse_error*>(&error) != nullptr) {
      stopped_at_ = position;
    } else {
      error_ = "found a number outside the range of a double";
    }
    return false;
  }

  // After parsing failed.
  std::string Error(size_t size) const {
    return error_.empty() ? absl::StrCat("found no JSON: stopped at byte ", stopped_at_, " of ", size) : error_;
  }

 private:
  json* Place(json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      open_.back()->push_back(std::move(value));
      return &open_.back()->back();
    }
    *value_ = std::move(value);
    return value_;
  }
  bool Add(json value) {
    Place(std::move(value));
    return true;
  }
  bool Open(json value) {
    open_.push_back(Place(std::move(value)));
    return true;
  }
  bool Close() {
    open_.pop_back();
    return true;
  }

  json& root_;
  const ReadFloat read_float_;
  std::vector<json*> open_;  // containers around the next value; one grows only while it is the last of them
  json* value_ = nullptr;    // of the last key
  std::string error_;
  size_t stopped_at_ = 0;
};

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

absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, absl::string_view name, ReadFloat read_float) {
  if (const int depth = Depth(text); depth > kMaxDepth) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": found brackets nested ", depth, " deep, allowed ", kMaxDepth));
  }
  nlohmann::json value;
  DocumentBuilder builder(value, read_float);
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": ", builder.Error(text.size())));
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
