#include "server/trace_context.h"

#include <algorithm>

namespace quire {
namespace {

// "00-" trace "-" parent "-" flags.
constexpr size_t kTraceAt = 3, kTraceDigits = 32;
constexpr size_t kParentAt = kTraceAt + kTraceDigits + 1, kParentDigits = 16;
constexpr size_t kFlagsAt = kParentAt + kParentDigits + 1;
constexpr size_t kLength = kFlagsAt + 2;

// absl::ascii_isxdigit takes capitals too.
bool IsDigit(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }
bool AreDigits(absl::string_view text) { return std::all_of(text.begin(), text.end(), IsDigit); }
bool IsId(absl::string_view text) {
  return AreDigits(text) && std::any_of(text.begin(), text.end(), [](char c) { return c != '0'; });
}

}  // namespace

std::optional<TraceContext> ParseTraceparent(absl::string_view value) {
  if (value.size() < kLength) return std::nullopt;
  const absl::string_view version = value.substr(0, 2), trace = value.substr(kTraceAt, kTraceDigits),
                          parent = value.substr(kParentAt, kParentDigits), flags = value.substr(kFlagsAt, 2);
  const bool separated = value[kTraceAt - 1] == '-' && value[kParentAt - 1] == '-' && value[kFlagsAt - 1] == '-';
  if (!separated || !AreDigits(version) || version == "ff" || !IsId(trace) || !IsId(parent) || !AreDigits(flags)) {
    return std::nullopt;
  }
  if (value.size() > kLength && (version == "00" || value[kLength] != '-')) return std::nullopt;
  TraceContext context;
  context.trace_id = std::string(trace);
  context.parent_span_id = std::string(parent);
  context.sampled = (flags[1] <= '9' ? flags[1] - '0' : flags[1] - 'a' + 10) % 2 == 1;  // the lowest bit
  return context;
}

}  // namespace quire
