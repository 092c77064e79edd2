#include "server/flag_values.h"

#include <curl/curl.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/json_text.h"

namespace quire {
namespace {

absl::Status Invalid(absl::string_view text, absl::string_view allowed) {
  return absl::InvalidArgumentError(absl::StrCat(Quoted(text), " is ", allowed));
}

// Splits "1.5GiB" into 1.5 and "GiB"; false when it does not begin with a plain decimal number.
bool SplitUnit(absl::string_view text, double* number, absl::string_view* unit) {
  size_t end = 0;
  while (end < text.size() && (absl::ascii_isdigit(text[end]) || text[end] == '.')) ++end;
  *unit = absl::StripAsciiWhitespace(text.substr(end));
  return end > 0 && absl::SimpleAtod(text.substr(0, end), number);
}

}  // namespace

absl::StatusOr<int64_t> ParseInteger(absl::string_view text, int64_t min, int64_t max) {
  const std::string allowed = absl::StrCat("not a whole number from ", min, " to ", max);
  int64_t value = 0;
  if (!absl::SimpleAtoi(text, &value) || value < min || value > max) return Invalid(text, allowed);
  return value;
}

absl::StatusOr<uint64_t> ParseBytes(absl::string_view text) {
  static constexpr std::pair<absl::string_view, double> kUnits[] = {
      {"", 1},      {"b", 1},        {"kb", 1e3},        {"mb", 1e6},           {"gb", 1e9},
      {"tb", 1e12}, {"kib", 1024.0}, {"mib", 1048576.0}, {"gib", 1073741824.0}, {"tib", 1099511627776.0},
  };
  constexpr double kLargest = 1e15;  // a petabyte: beyond any machine, far below where a double loses bytes
  double number = 0;
  absl::string_view unit;
  if (SplitUnit(text, &number, &unit)) {
    const std::string lower = absl::AsciiStrToLower(unit);
    for (const auto& [name, factor] : kUnits) {
      if (lower == name && number * factor <= kLargest) return static_cast<uint64_t>(number * factor);
    }
  }
  return Invalid(text, "not a number of bytes, such as 1073741824, 512MiB or 2GiB");
}

absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text) {
  static const std::pair<absl::string_view, absl::Duration> kUnits[] = {
      {"ms", absl::Milliseconds(1)}, {"s", absl::Seconds(1)}, {"m", absl::Minutes(1)}, {"h", absl::Hours(1)}};
  double number = 0;
  absl::string_view unit;
  if (SplitUnit(text, &number, &unit)) {
    if (unit.empty() && number == 0) return absl::ZeroDuration();
    for (const auto& [name, one] : kUnits) {
      if (unit == name && number * one <= absl::Hours(24 * 365)) return number * one;
    }
  }
  return Invalid(text, "not a duration, such as 250ms, 30s or 2m");
}

absl::StatusOr<bool> ParseSwitch(absl::string_view text) {
  const std::string lower = absl::AsciiStrToLower(text);
  for (absl::string_view yes : {"true", "1", "on", "yes"}) {
    if (lower == yes) return true;
  }
  for (absl::string_view no : {"false", "0", "off", "no"}) {
    if (lower == no) return false;
  }
  return Invalid(text, "neither true nor false");
}

absl::StatusOr<std::vector<int>> ParseCpuList(absl::string_view text) {
  constexpr int64_t kLargest = 1023;  // what a cpu_set_t holds
  std::vector<int> cpus;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    const std::pair<absl::string_view, absl::string_view> range = absl::StrSplit(part, absl::MaxSplits('-', 1));
    const auto first = ParseInteger(range.first, 0, kLargest);
    const auto last = absl::StrContains(part, '-') ? ParseInteger(range.second, 0, kLargest) : first;
    if (!first.ok() || !last.ok() || *first > *last) return Invalid(text, "not a list of CPUs, such as 0,2-5");
    for (int64_t cpu = *first; cpu <= *last; ++cpu) cpus.push_back(static_cast<int>(cpu));
  }
  return cpus;
}

absl::StatusOr<std::map<std::string, double>> ParseWeights(absl::string_view text) {
  std::map<std::string, double> weights;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    const size_t equals = part.rfind('=');
    double weight = 0;
    const bool valid = equals != absl::string_view::npos && equals > 0 &&
                       absl::SimpleAtod(part.substr(equals + 1), &weight) && weight >= 1e-3 && weight <= 1e6;
    if (!valid) return Invalid(text, "not a list of weights from 0.001 to 1000000, such as gold=4,free=0.5");
    if (!weights.emplace(std::string(part.substr(0, equals)), weight).second) {
      return Invalid(text, absl::StrCat("naming ", part.substr(0, equals), " twice"));
    }
  }
  return weights;
}

absl::StatusOr<std::string> ParseHttpUrl(absl::string_view text, const char* default_path) {
  const absl::Status error = Invalid(text, "not a URL such as http://localhost:4318");
  const std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> url(curl_url(), curl_url_cleanup);
  if (curl_url_set(url.get(), CURLUPART_URL, std::string(text).c_str(), 0) != CURLUE_OK) return error;
  const auto part = [&](CURLUPart which) {
    char* found = nullptr;
    if (curl_url_get(url.get(), which, &found, 0) != CURLUE_OK) return std::string();
    std::string copy = found;
    curl_free(found);
    return copy;
  };
  if (const std::string scheme = part(CURLUPART_SCHEME); scheme != "http" && scheme != "https") return error;
  if (part(CURLUPART_PATH) == "/") curl_url_set(url.get(), CURLUPART_PATH, default_path, 0);
  return part(CURLUPART_URL);
}

bool ListenAddress::loopback() const {
  if (host == "localhost" || host == "::1") return true;
  // All of 127.0.0.0/8, but no host name that merely begins so ("127.evil.example").
  if (!absl::StartsWith(host, "127.")) return false;
  return std::all_of(host.begin(), host.end(), [](char c) { return absl::ascii_isdigit(c) || c == '.'; });
}

std::string ListenAddress::ToString() const {
  return absl::StrCat(absl::StrContains(host, ':') ? absl::StrCat("[", host, "]") : host, ":", port);
}

absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view text) {
  const absl::Status error = Invalid(text, "not HOST:PORT, such as 127.0.0.1:50051, 0.0.0.0:0 or [::1]:50051");
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos || colon == 0) return error;
  absl::string_view host = text.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (absl::StrContains(host, ':')) {
    return error;
  }
  const auto port = ParseInteger(text.substr(colon + 1), 0, 65535);
  if (!port.ok() || host.empty()) return error;
  return ListenAddress{std::string(host), static_cast<uint16_t>(*port)};
}

}  // namespace quire
