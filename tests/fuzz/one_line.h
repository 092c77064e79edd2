// What every error of a reader must be: one line, not empty, of bounded length.

#ifndef QUIRE_TESTS_FUZZ_ONE_LINE_H_
#define QUIRE_TESTS_FUZZ_ONE_LINE_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "kernels/check.h"

namespace quire {

inline void CheckOneLine(const absl::Status& status) {
  if (status.ok()) return;
  constexpr size_t kLongest = 2000;
  const absl::string_view message = status.message();
  Check(!message.empty() && message.size() < kLongest, "an error without a message, or with an endless one");
  Check(message.find('\n') == absl::string_view::npos, "an error of several lines");
}

}  // namespace quire

#endif  // QUIRE_TESTS_FUZZ_ONE_LINE_H_
