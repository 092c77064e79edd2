// Where options come from: a TOML file, the environment, the command line; the later ones win.

#ifndef QUIRE_SERVER_OPTION_SOURCES_H_
#define QUIRE_SERVER_OPTION_SOURCES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "server/flags.h"

namespace quire {

// Fills `options`. `arguments` are those after the program's name; `environment` holds NAME=VALUE entries, of which
// QUIRE_* count. An error is one line that names the option, where it stood, what was found and what is allowed;
// `options` then holds what was understood before it (so that the error can be logged in the chosen format). QUIRE_*
// variables that are no option are not an error (Kubernetes makes QUIRE_SERVICE_HOST for a Service named quire): they
// are listed in `unknown_variables`.
absl::Status ReadOptions(absl::Span<const std::string> arguments, absl::Span<const std::string> environment,
                         Options& options, std::vector<std::string>& unknown_variables);

}  // namespace quire

#endif  // QUIRE_SERVER_OPTION_SOURCES_H_
