// One load test against one server: what stays the same over its runs.

#ifndef QUIRE_CLIENT_LOAD_SESSION_H_
#define QUIRE_CLIENT_LOAD_SESSION_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "client/interrupt.h"
#include "client/io.h"
#include "client/load/backend.h"
#include "client/load/options.h"
#include "client/load/plan.h"
#include "client/load/report.h"
#include "client/load/runner.h"

namespace quire::client {

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const LoadOptions& options);

// What a test came to: the run that is reported, under the options that it ran by.
struct LoadOutcome {
  LoadOptions options;
  RunResult run;
  Report report;
};

class Session {
 public:
  // Asks the server what it serves. What prompts cannot be for its sake is told on io.err.
  static absl::StatusOr<Session> Begin(const LoadOptions& options, Backend& backend, Interrupt& interrupt, Io& io);

  // One run: warm-up, the requests, the replay check. Errors: the dataset.
  absl::StatusOr<LoadOutcome> Run();

  // Runs at rates that RateSearch tries; the outcome is that of the best, or of the last if none holds.
  absl::StatusOr<LoadOutcome> Sweep();

 private:
  Session(const LoadOptions& options, Backend& backend, Interrupt& interrupt, Io& io, ServedModel model);

  absl::StatusOr<LoadOutcome> RunOnce(const LoadOptions& options, const RunShape& shape, const std::string& title,
                                      const std::function<bool(const RequestResult&)>& gives_up);
  absl::StatusOr<LoadOutcome> RunStage(double rate, size_t index);

  const LoadOptions& options_;
  Backend& backend_;
  Interrupt& interrupt_;
  Io& io_;
  const ServedModel model_;
  PromptForm form_;
  std::string id_prefix_;
};

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_SESSION_H_
