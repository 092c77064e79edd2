// Values of flags: text to numbers, sizes, durations, switches and addresses. Every error is one phrase that says what
// was found and what is allowed; who calls puts the flag's name before it.
//
// Thread: functions of their arguments.

#ifndef QUIRE_SERVER_FLAG_VALUES_H_
#define QUIRE_SERVER_FLAG_VALUES_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace quire {

// A whole number in [min, max].
absl::StatusOr<int64_t> ParseInteger(absl::string_view text, int64_t min, int64_t max);

// Bytes: "4096", "512MiB", "2GiB", "1.5GB"; units B, KB, MB, GB, TB (powers of 1000) and KiB, MiB, GiB, TiB (of 1024).
absl::StatusOr<uint64_t> ParseBytes(absl::string_view text);

// "250ms", "30s", "2m", "1h", "1.5s"; "0" needs no unit. Never negative, at most a year.
absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text);

// "true" and "false", "1" and "0", "on" and "off", "yes" and "no".
absl::StatusOr<bool> ParseSwitch(absl::string_view text);

// CPU numbers and ranges: "0,2-5".
absl::StatusOr<std::vector<int>> ParseCpuList(absl::string_view text);

// "gold=4,free=0.5": a weight above 0 for each name.
absl::StatusOr<std::map<std::string, double>> ParseWeights(absl::string_view text);

// "http://HOST:PORT/PATH" or https; `default_path` where it has none.
absl::StatusOr<std::string> ParseHttpUrl(absl::string_view text, const char* default_path);

// HOST:PORT; an IPv6 host stands in brackets.
struct ListenAddress {
  std::string host;
  uint16_t port = 0;  // 0: a free one

  // "127.0.0.1", "localhost", "::1" and the like: nobody else can reach it.
  bool loopback() const;
  std::string ToString() const;
};
absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view text);

}  // namespace quire

#endif  // QUIRE_SERVER_FLAG_VALUES_H_
