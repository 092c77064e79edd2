// KeyReader: typed and bounded reading of one JSON object's keys, for readers that run down as a list of keys.

#ifndef QUIRE_ENGINE_CONFIG_KEY_READER_H_
#define QUIRE_ENGINE_CONFIG_KEY_READER_H_

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace quire {

// A whole number of [min, max], 0 <= max.
bool IsWhole(const nlohmann::json& value, int64_t min, int64_t max);

// Keeps the first error and goes on with values inside the bounds. An error names the file, the key, what was found and
// what is allowed, in one line. A key whose value is null is absent.
class KeyReader {
 public:
  // `object` outlives the reader; `where` begins every message: the file and the way to the object.
  KeyReader(const nlohmann::json& object, std::string where) : object_(object), where_(std::move(where)) {}

  const absl::Status& status() const { return status_; }
  const std::string& where() const { return where_; }

  // The value at `key`; nullptr where it is absent.
  const nlohmann::json* Find(const char* key) const;
  // The key is there, be it null.
  bool Has(const char* key) const { return object_.contains(key); }

  void Fail(absl::string_view key, absl::string_view found, absl::string_view allowed);
  // Takes over another reader's error.
  void Update(const absl::Status& status) { status_.Update(status); }

  // A whole number of [min, max]; `absent` where the key is absent, an error where that is nullopt.
  int32_t Int(const char* key, int64_t min, int64_t max, std::optional<int64_t> absent = std::nullopt);
  // A finite number of [min, max].
  double Number(const char* key, double min, double max, std::optional<double> absent = std::nullopt);
  bool Bool(const char* key, bool absent);
  // One of `allowed`; `absent` where the key is absent.
  std::string Text(const char* key, std::initializer_list<absl::string_view> allowed, absl::string_view absent);
  // A list of `count` numbers of [min, max].
  std::vector<double> Numbers(const char* key, size_t count, double min, double max);

  // The key must be absent or have the one value given: another one is a variant that would be computed wrongly.
  void OnlyText(const char* key, absl::string_view only);
  void OnlyFalse(const char* key);
  void OnlyNumber(const char* key, double only);
  // The key must be absent.
  void OnlyAbsent(const char* key);
  // The object must have no other keys.
  void OnlyKeys(std::initializer_list<absl::string_view> allowed);

 private:
  const nlohmann::json& object_;
  const std::string where_;
  absl::Status status_;
};

}  // namespace quire

#endif  // QUIRE_ENGINE_CONFIG_KEY_READER_H_
