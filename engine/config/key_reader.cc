#include "engine/config/key_reader.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/json_text.h"

namespace quire {

using nlohmann::json;

bool IsWhole(const json& value, int64_t min, int64_t max) {
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(max)) return false;
  return value.is_number_integer() && value.get<int64_t>() >= min && value.get<int64_t>() <= max;
}

const json* KeyReader::Find(const char* key) const {
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

void KeyReader::Fail(absl::string_view key, absl::string_view found, absl::string_view allowed) {
  if (status_.ok())
    status_ = absl::InvalidArgumentError(absl::StrCat(where_, ": ", key, ": found ", found, ", allowed: ", allowed));
}

int32_t KeyReader::Int(const char* key, int64_t min, int64_t max, std::optional<int64_t> absent) {
  const std::string allowed = absl::StrCat("a whole number from ", min, " to ", max);
  const json* value = Find(key);
  if (value == nullptr) {
    if (!absent.has_value()) Fail(key, "none", allowed);
    return static_cast<int32_t>(absent.value_or(min));
  }
  if (IsWhole(*value, min, max)) return value->get<int32_t>();
  Fail(key, Shown(*value), allowed);
  return static_cast<int32_t>(min);
}

double KeyReader::Number(const char* key, double min, double max, std::optional<double> absent) {
  const std::string allowed = absl::StrCat("a number from ", min, " to ", max);
  const json* value = Find(key);
  if (value == nullptr) {
    if (!absent.has_value()) Fail(key, "none", allowed);
    return absent.value_or(min);
  }
  const bool fits = value->is_number() && value->get<double>() >= min && value->get<double>() <= max;
  if (!fits) Fail(key, Shown(*value), allowed);
  return fits ? value->get<double>() : min;
}

bool KeyReader::Bool(const char* key, bool absent) {
  const json* value = Find(key);
  if (value == nullptr) return absent;
  if (!value->is_boolean()) Fail(key, Shown(*value), "true, false");
  return value->is_boolean() && value->get<bool>();
}

std::string KeyReader::Text(const char* key, std::initializer_list<absl::string_view> allowed,
                            absl::string_view absent) {
  const json* value = Find(key);
  if (value == nullptr) return std::string(absent);
  if (value->is_string()) {
    const std::string& text = value->get_ref<const std::string&>();
    if (std::find(allowed.begin(), allowed.end(), text) != allowed.end()) return text;
  }
  Fail(key, Shown(*value), absl::StrJoin(allowed, ", ", [](std::string* out, absl::string_view text) {
         absl::StrAppend(out, Quoted(text));
       }));
  return std::string(*allowed.begin());
}

std::vector<double> KeyReader::Numbers(const char* key, size_t count, double min, double max) {
  std::vector<double> numbers(count, min);
  const json* value = Find(key);
  const bool is_list = value != nullptr && value->is_array() && value->size() == count;
  for (size_t i = 0; i < count; ++i) {
    const bool fits =
        is_list && (*value)[i].is_number() && (*value)[i].get<double>() >= min && (*value)[i].get<double>() <= max;
    if (!fits) {
      const std::string found = value == nullptr    ? "none"
                                : is_list           ? absl::StrCat(Shown((*value)[i]), " at ", i)
                                : value->is_array() ? absl::StrCat("an array of ", value->size())
                                                    : Shown(*value);
      Fail(key, found, absl::StrCat("an array of ", count, " numbers from ", min, " to ", max));
      break;
    }
    numbers[i] = (*value)[i].get<double>();
  }
  return numbers;
}

void KeyReader::OnlyText(const char* key, absl::string_view only) { Text(key, {only}, only); }

void KeyReader::OnlyFalse(const char* key) {
  const json* value = Find(key);
  if (value != nullptr && !(value->is_boolean() && !value->get<bool>())) Fail(key, Shown(*value), "false");
}

void KeyReader::OnlyNumber(const char* key, double only) {
  const json* value = Find(key);
  if (value != nullptr && !(value->is_number() && value->get<double>() == only))
    Fail(key, Shown(*value), absl::StrCat(only));
}

void KeyReader::OnlyAbsent(const char* key) {
  if (const json* value = Find(key)) Fail(key, Shown(*value), "null");
}

void KeyReader::OnlyKeys(std::initializer_list<absl::string_view> allowed) {
  for (const auto& [key, value] : object_.items()) {
    if (std::find(allowed.begin(), allowed.end(), key) == allowed.end())
      Fail(Quoted(key), Shown(value), absl::StrCat("only the keys ", absl::StrJoin(allowed, ", ")));
  }
}

}  // namespace quire
