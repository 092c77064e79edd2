// quired: the daemon, and the two commands that need no daemon, plan and tokenize.

#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/backend.h"
#include "kernels/backend_cuda.h"
#include "server/daemon.h"
#include "server/flags.h"
#include "server/logging.h"
#include "server/model_info.h"
#include "server/option_sources.h"
#include "server/shutdown_signal.h"
#include "server/tokenizer/tokenize_command.h"

namespace quire {
namespace {

constexpr int kOperatorError = 1;

int Fail(const absl::Status& status) {
  LogError(status.message().empty() ? status.ToString() : std::string(status.message()));
  return kOperatorError;
}

// One descriptor for each connection: takes as many as the system allows.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int Serve(const Options& options) {
  RaiseDescriptorLimit();
  ShutdownSignal signal;
  absl::StatusOr<std::unique_ptr<Daemon>> daemon = Daemon::Start(options, signal);
  if (!daemon.ok()) return Fail(daemon.status());
  std::cout << (*daemon)->ReadyLine() << std::endl;
  return (*daemon)->Run();
}

// The machine's, or one of a device that is elsewhere.
absl::StatusOr<std::unique_ptr<Backend>> BackendToPlanFor(const Options& options) {
  if (options.device_memory.has_value()) {
    if (absl::Status status = CheckOptionsOf(BackendKind::kCuda, options.engine.backend); !status.ok()) return status;
    return CreatePlannedCudaBackend(*options.device_memory);
  }
  absl::StatusOr<std::unique_ptr<Backend>> backend = CreateBackend(options.engine.backend);
  if (backend.ok() || options.engine.backend.kind != BackendKind::kCuda) return backend;
  return absl::Status(backend.status().code(), absl::StrCat(backend.status().message(),
                                                            "; --device-memory plans for a device that is not here"));
}

int Plan(const Options& options) {
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(options.engine.model);
  if (!config.ok()) return Fail(config.status());
  const absl::StatusOr<std::unique_ptr<Backend>> backend = BackendToPlanFor(options);
  if (!backend.ok()) return Fail(backend.status());
  const absl::StatusOr<MemoryPlan> plan = MakeMemoryPlan(*config, options.engine, **backend);
  if (!plan.ok()) return Fail(plan.status());
  const absl::StatusOr<std::string> name = ServedName(options.served_model_name, options.engine.model);
  if (!name.ok()) return Fail(name.status());
  const v1::GetModelResponse model = DescribeModel(*name, *config, *plan, (*backend)->Description());
  std::cout << (options.json ? PlanJson(model, *plan) : PlanText(model, *plan)) << std::flush;
  return 0;
}

int Tokenize(const Options& options) {
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(options.engine.model);
  if (!tokenizer.ok()) return Fail(tokenizer.status());
  std::ios::sync_with_stdio(false);
  return RunTokenizeCommand(**tokenizer, options.no_special, options.decode, std::cin, std::cout, std::cerr);
}

int Run(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  Options options;
  std::vector<std::string> unknown_variables;
  const absl::Status status = ReadOptions(arguments, environment, options, unknown_variables);
  SetUpLogging(options.log_level, options.log_format);
  if (!status.ok()) return Fail(status);
  for (const std::string& name : unknown_variables)
    spdlog::warn("environment: {} is no option and has no effect", name);

  switch (options.command) {
    case Subcommand::kServe:
      return Serve(options);
    case Subcommand::kPlan:
      return Plan(options);
    case Subcommand::kTokenize:
      return Tokenize(options);
    case Subcommand::kHelp:
      std::cout << HelpText();
      return 0;
    case Subcommand::kVersion:
      std::cout << "quired " QUIRE_VERSION "\n";
      return 0;
  }
  return kOperatorError;
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) {
  try {
    return quire::Run(argc, argv);
  } catch (const std::bad_alloc&) {  // a model or a cache larger than the machine
    quire::LogError("out of memory: choose a smaller --kv-cache-memory, --max-model-len or model");
  } catch (const std::exception& error) {
    quire::LogError(absl::StrCat("unexpected: ", error.what()));
  }
  return quire::kOperatorError;
}
