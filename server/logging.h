// Logs: lines on stderr through spdlog, as text or as JSON objects, one per line.
//
// Text: "[2026-01-31 12:00:00.000] [info] message". JSON: time, level, message; a finished request's line has its
// fields beside them.

#ifndef QUIRE_SERVER_LOGGING_H_
#define QUIRE_SERVER_LOGGING_H_

#include <memory>

#include "absl/strings/string_view.h"
#include "server/flags.h"
#include "server/request_record.h"

namespace spdlog {
class logger;
}

namespace quire {

// Sets the process's logger up; to be called once, before other threads run. Lines of gRPC and Protobuf go there too:
// their warnings and errors as warnings, for an error line is the operator's (or a fault of ours), and those are told
// by who finds them.
void SetUpLogging(LogLevel level, LogFormat format);

// One line at level error: control characters escaped, so that it stays one.
void LogError(absl::string_view message);

// The one line of each accepted request that is over.
class RequestLog {
 public:
  explicit RequestLog(LogFormat format);
  ~RequestLog();

  // Thread: any.
  void Ended(const RequestRecord& record) const;

 private:
  const LogFormat format_;
  const std::shared_ptr<spdlog::logger> lines_;  // prints what it is given, unadorned
};

}  // namespace quire

#endif  // QUIRE_SERVER_LOGGING_H_
