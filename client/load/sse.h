// Server-sent events (WHATWG HTML, "Server-sent events", parsing an event stream): the data of each, from bytes that
// come in any pieces.

#ifndef QUIRE_CLIENT_LOAD_SSE_H_
#define QUIRE_CLIENT_LOAD_SSE_H_

#include <cstddef>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"

namespace quire::client {

class SseParser {
 public:
  // Calls `on_data` with the data of each event that `bytes` complete: its data lines joined by newlines. Lines end in
  // CR LF, LF or CR; comments and other fields are skipped, an event without data is none. False: an event is larger
  // than any server's, and the parser is of no more use.
  bool Feed(absl::string_view bytes, absl::FunctionRef<void(absl::string_view)> on_data);

 private:
  bool TakeLine(absl::string_view line, absl::FunctionRef<void(absl::string_view)> on_data);

  std::string line_;        // begun in an earlier piece
  std::string data_;        // of the event under way
  bool has_data_ = false;   // the event has a data line, be it an empty one
  bool after_cr_ = false;   // the piece before ended in CR: a LF now ends no other line
  bool first_line_ = true;  // which may begin with a byte order mark
};

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_SSE_H_
