// The files of a load test: JSON result, JSON lines, Markdown, HTML.

#ifndef QUIRE_CLIENT_LOAD_SAVE_H_
#define QUIRE_CLIENT_LOAD_SAVE_H_

#include "absl/status/status.h"
#include "client/load/options.h"
#include "client/load/report.h"
#include "client/load/result.h"

namespace quire::client {

// Writes the files that the options ask for. Errors: the first that cannot be written.
absl::Status SaveFiles(const LoadOptions& options, const RunResult& run, const Report& report);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_SAVE_H_
