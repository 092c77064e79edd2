#include "client/load/load.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/interrupt.h"
#include "client/load/report.h"
#include "client/load/save.h"
#include "client/load/session.h"

namespace quire::client {
namespace {

int Fail(const absl::Status& status, ExitCode code, Io& io) {
  io.err << "quire: " << status.message() << '\n';
  return code;
}

// Of a run of which no request completed: the first failure, or the interrupt.
int NothingCompleted(const RunResult& run, Io& io) {
  if (!run.interrupted && !run.requests.empty()) {
    io.err << "quire: no request completed; the first: " << run.requests[0].error << '\n';
  }
  return run.interrupted ? kExitInterrupted : kExitRpcFailed;
}

}  // namespace

int RunLoad(const LoadOptions& options, Io& io) {
  if (absl::Status checked = CheckLoadOptions(options); !checked.ok()) {
    return Fail(checked, kExitUsage, io);
  }
  Interrupt interrupt;
  absl::StatusOr<std::unique_ptr<Backend>> backend = MakeBackend(options);
  if (!backend.ok()) {
    return Fail(backend.status(), kExitUsage, io);
  }
  absl::StatusOr<Session> session = Session::Begin(options, **backend, interrupt, io);
  if (!session.ok()) {
    return Fail(session.status(), kExitRpcFailed, io);
  }
  absl::StatusOr<LoadOutcome> outcome = options.sweep.has_value() ? session->Sweep() : session->Run();
  if (!outcome.ok()) {  // the dataset; or the server does not tokenize
    return Fail(outcome.status(), absl::IsUnavailable(outcome.status()) ? kExitRpcFailed : kExitUsage, io);
  }
  const RunResult& run = outcome->run;
  const Report& report = outcome->report;
  io.out << ReportTable(outcome->options, run, report) << std::flush;
  if (absl::Status saved = SaveFiles(outcome->options, run, report); !saved.ok()) {
    return Fail(saved, kExitUsage, io);
  }
  if (report.completed + report.cancelled == 0) {
    return NothingCompleted(run, io);
  }
  std::vector<std::string> misses =
      Misses(options.assertions, ReportJson(outcome->options, run, report, /*detailed=*/false));
  if (run.replay.has_value()) {
    for (const std::string& id : run.replay->mismatched) {
      misses.push_back(absl::StrCat("request ", id, ", repeated alone, gave another answer"));
    }
  }
  for (const std::string& miss : misses) {
    io.err << "quire: assertion missed: " << miss << '\n';
  }
  if (run.interrupted) {
    return kExitInterrupted;
  }
  return misses.empty() ? kExitOk : kExitAssertionMissed;
}

}  // namespace quire::client
