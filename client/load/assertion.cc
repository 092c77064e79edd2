#include "client/load/assertion.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace quire::client {
namespace {

bool Holds(double value, const Assertion& assertion) {
  if (assertion.comparison == "<") {
    return value < assertion.bound;
  }
  if (assertion.comparison == "<=") {
    return value <= assertion.bound;
  }
  return assertion.comparison == ">" ? value > assertion.bound : value >= assertion.bound;
}

}  // namespace

absl::StatusOr<Assertion> ParseAssertion(absl::string_view text) {
  Assertion assertion;
  assertion.text = std::string(text);
  const size_t at = text.find_first_of("<>");
  const bool found = at != absl::string_view::npos;
  const size_t length = found && text.substr(at + 1, 1) == "=" ? 2 : 1;
  if (found) {
    assertion.key = std::string(absl::StripAsciiWhitespace(text.substr(0, at)));
    assertion.comparison = std::string(text.substr(at, length));
  }
  if (!found || assertion.key.empty() || !absl::SimpleAtod(text.substr(at + length), &assertion.bound) ||
      !std::isfinite(assertion.bound)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "'; allowed: KEY<NUMBER with a key of the JSON result, and <=, >, >= in place of <"));
  }
  return assertion;
}

std::vector<std::string> Misses(const std::vector<Assertion>& assertions, const nlohmann::ordered_json& result) {
  std::vector<std::string> misses;
  for (const Assertion& assertion : assertions) {
    const auto found = result.find(assertion.key);
    if (found == result.end() || !found->is_number()) {
      misses.push_back(absl::StrCat(assertion.text, ": the result has no number of this name"));
    } else if (!Holds(found->get<double>(), assertion)) {
      misses.push_back(absl::StrCat(assertion.text, ": it is ", found->get<double>()));
    }
  }
  return misses;
}

}  // namespace quire::client
