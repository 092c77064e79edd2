#include "client/parse.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace quire::client {

absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text) {
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration) || duration <= absl::ZeroDuration() ||
      duration == absl::InfiniteDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is no duration; allowed: a positive number with ms, s, m or h, e.g. 250ms, 5s, 2m"));
  }
  return duration;
}

absl::StatusOr<std::vector<uint32_t>> ParseTokenIds(absl::string_view text) {
  absl::string_view list = absl::StripAsciiWhitespace(text);
  const bool bracketed = list.size() >= 2 && list.front() == '[' && list.back() == ']';
  if (bracketed) {
    list = list.substr(1, list.size() - 2);
  }
  std::vector<uint32_t> ids;
  for (absl::string_view part : absl::StrSplit(list, ',')) {
    uint32_t id;
    if (!absl::SimpleAtoi(part, &id)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "'", part.substr(0, 32), "' is no token id; allowed: ids from 0 to 4294967295, as 1,2,3 or [1, 2, 3]"));
    }
    ids.push_back(id);
  }
  return ids;
}

absl::StatusOr<std::pair<uint32_t, float>> ParseLogitBias(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, '=');
  uint32_t id;
  float bias;
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &id) || !absl::SimpleAtof(parts[1], &bias)) {
    return absl::InvalidArgumentError(absl::StrCat("'", text, "' is no logit bias; allowed: ID=BIAS, e.g. 42=-1.5"));
  }
  return std::make_pair(id, bias);
}

namespace {

// Bytes of the well-formed character at the front of `text`, 0 if there is none (Unicode 15, table 3-7).
size_t CharacterBytes(absl::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : 0u; };
  const auto continues = [&](size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
  const unsigned first = byte(0);
  if (first < 0x80) {
    return 1;
  }
  if (first >= 0xC2 && first <= 0xDF) {
    return continues(1) ? 2 : 0;
  }
  if (first >= 0xE0 && first <= 0xEF) {
    const bool overlong = first == 0xE0 && byte(1) < 0xA0;
    const bool surrogate = first == 0xED && byte(1) > 0x9F;
    return continues(1) && continues(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const bool overlong = first == 0xF0 && byte(1) < 0x90;
    const bool beyond = first == 0xF4 && byte(1) > 0x8F;  // above U+10FFFF
    return continues(1) && continues(2) && continues(3) && !overlong && !beyond ? 4 : 0;
  }
  return 0;
}

}  // namespace

absl::Status CheckUtf8(absl::string_view what, absl::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = CharacterBytes(text.substr(at));
    if (bytes == 0) {
      return absl::InvalidArgumentError(absl::StrCat(what, " is not UTF-8: byte ", at, " begins no character"));
    }
    at += bytes;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  if (file && file.peek() != std::ifstream::traits_type::eof()) {
    content << file.rdbuf();
  } else if (!file.eof()) {
    return absl::NotFoundError(absl::StrCat("cannot read ", path, ": ", std::strerror(errno)));
  }
  return content.str();
}

}  // namespace quire::client
