#include "client/load/sse.h"

#include "absl/strings/match.h"
#include "absl/strings/strip.h"

namespace quire::client {
namespace {

constexpr size_t kMaxEventBytes = 16 << 20;
constexpr absl::string_view kByteOrderMark = "\xEF\xBB\xBF";

}  // namespace

bool SseParser::Feed(absl::string_view bytes, absl::FunctionRef<void(absl::string_view)> on_data) {
  while (!bytes.empty()) {
    if (after_cr_) {
      after_cr_ = false;
      absl::ConsumePrefix(&bytes, "\n");
      continue;
    }
    const size_t end = bytes.find_first_of("\r\n");
    if (end == absl::string_view::npos) {
      line_.append(bytes.data(), bytes.size());
      return line_.size() + data_.size() <= kMaxEventBytes;
    }
    absl::string_view line = bytes.substr(0, end);
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    if (!line_.empty()) {
      line_.append(line.data(), line.size());
      line = line_;
    }
    if (!TakeLine(line, on_data)) {
      return false;
    }
    line_.clear();
  }
  return true;
}

bool SseParser::TakeLine(absl::string_view line, absl::FunctionRef<void(absl::string_view)> on_data) {
  if (first_line_) {
    absl::ConsumePrefix(&line, kByteOrderMark);
    first_line_ = false;
  }
  if (line.empty()) {
    if (has_data_) {
      on_data(data_);
    }
    data_.clear();
    has_data_ = false;
    return true;
  }
  if (!absl::ConsumePrefix(&line, "data") || !(line.empty() || absl::ConsumePrefix(&line, ":"))) {
    return true;  // a comment, or a field that says nothing here
  }
  absl::ConsumePrefix(&line, " ");
  if (has_data_) {
    data_ += '\n';
  }
  has_data_ = true;
  data_.append(line.data(), line.size());
  return data_.size() <= kMaxEventBytes;
}

}  // namespace quire::client
