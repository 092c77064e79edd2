// Bounds on the figures of a load test, for the pipelines that run one.

#ifndef QUIRE_CLIENT_LOAD_ASSERTION_H_
#define QUIRE_CLIENT_LOAD_ASSERTION_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quire::client {

// "p99_ttft_ms<500": a key of the result with a number, one of < <= > >= and the bound.
struct Assertion {
  std::string text;
  std::string key;
  std::string comparison;
  double bound = 0;
};

absl::StatusOr<Assertion> ParseAssertion(absl::string_view text);

// One line for each that does not hold. A figure that the result does not have holds no bound.
std::vector<std::string> Misses(const std::vector<Assertion>& assertions, const nlohmann::ordered_json& result);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_ASSERTION_H_
