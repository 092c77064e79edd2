#include "client/load/load.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/interrupt.h"
#include "client/load/grpc_backend.h"
#include "client/load/openai_backend.h"
#include "client/load/plan.h"
#include "client/load/report.h"
#include "client/load/runner.h"

namespace quire::client {
namespace {

// On a terminal the line replaces itself; elsewhere each one stays, so they are few.
constexpr double kTerminalProgressSeconds = 0.25;
constexpr double kLogProgressSeconds = 10;

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const LoadOptions& options) {
  if (options.backend == "grpc") {
    return MakeQuireBackend(options.connection, options.connections);
  }
  if (options.backend == "vllm-grpc") {
    return MakeVllmBackend(options.connection, options.connections);
  }
  OpenAiOptions openai;
  openai.chat = options.backend == "openai-chat";
  if (!options.base_url.empty()) {
    openai.base_url = options.base_url;
  }
  openai.endpoint = options.endpoint;
  const char* key = std::getenv("OPENAI_API_KEY");
  openai.api_key = options.api_key.empty() && key != nullptr ? key : options.api_key;
  openai.headers = options.headers;
  openai.extra_body = options.extra_body;
  openai.connection = options.connection;
  return MakeOpenAiBackend(openai);
}

// What prompts the backend takes; what it cannot say of them is told on io.err.
PromptForm MakePromptForm(const LoadOptions& options, const ServedModel& model, Backend& backend, Io& io) {
  PromptForm form;
  form.ids = backend.takes_ids();
  form.vocab_size = options.vocab_size.has_value() ? options.vocab_size : model.vocab_size;
  const std::string& dataset = options.dataset.name;
  if ((dataset == "random" || dataset == "trace") && form.ids && !form.vocab_size.has_value()) {
    io.err << "quire: the server does not tell the size of its vocabulary: prompts are random words of about one token "
              "each; --vocab-size N sends ids\n";
  }
  if (dataset == "corpus" || dataset == "sharegpt") {
    if (absl::IsUnimplemented(backend.Tokenize("a").status())) {
      io.err << "quire: the server does not tokenize: a token of a prompt is taken to be " << kBytesPerToken
             << " bytes\n";
    } else {
      form.tokenize = [&backend](const std::string& text) { return backend.Tokenize(text); };
    }
  }
  return form;
}

// Repeats completed requests of the run, spread over it, one after the other, and compares their token ids, or their
// texts over HTTP.
ReplayOutcome Replay(const LoadOptions& options, Backend& backend, const LoadPlan& plan, const RunResult& run,
                     Interrupt& interrupt) {
  std::vector<size_t> completed;
  for (size_t i = 0; i < run.requests.size(); ++i) {
    if (run.requests[i].ok()) {
      completed.push_back(i);
    }
  }
  const size_t count = std::min<size_t>(options.replay_check, completed.size());
  std::vector<size_t> sample;
  LoadPlan alone;
  alone.max_concurrency = 1;
  alone.keep_token_ids = alone.keep_text = true;
  for (size_t i = 0; i < count; ++i) {
    sample.push_back(completed[i * completed.size() / count]);
    v1::GenerateRequest request = plan.requests[sample.back()].request;
    request.set_request_id(absl::StrCat(request.request_id(), "-replay"));
    alone.requests.push_back({std::move(request), 0, std::nullopt});
  }
  const RunResult again =
      RunPlan(backend, alone, interrupt, std::numeric_limits<double>::infinity(), [](const Tally&) {});
  ReplayOutcome outcome;
  for (size_t i = 0; i < again.requests.size(); ++i) {
    const RequestResult& first = run.requests[sample[i]];
    if (again.requests[i].ok()) {
      ++outcome.checked;
    }
    const bool equal = again.requests[i].token_ids == first.token_ids && again.requests[i].text == first.text;
    if (again.requests[i].ok() && !equal) {
      outcome.mismatched.push_back(first.request_id);
    }
  }
  return outcome;
}

class ProgressLine {
 public:
  ProgressLine(const LoadOptions& options, Io& io) : num_prompts_(options.num_prompts), io_(io) {}

  double period_s() const { return io_.err_is_terminal ? kTerminalProgressSeconds : kLogProgressSeconds; }

  void Show(const Tally& now) {
    const double span = now.elapsed_s - last_.elapsed_s;
    const double rate = span > 0 ? static_cast<double>(now.output_tokens - last_.output_tokens) / span : 0;
    io_.err << absl::StrFormat("%squire load: %d of %d done, %d failed, %d under way, %.0f tok/s, %.1fs%s",
                               io_.err_is_terminal ? "\r\033[K" : "", now.completed + now.failed + now.cancelled,
                               num_prompts_, now.failed, now.sent - now.completed - now.failed - now.cancelled, rate,
                               now.elapsed_s, io_.err_is_terminal ? "" : "\n")
            << std::flush;
    last_ = now;
    shown_ = true;
  }

  void Clear() {
    if (shown_ && io_.err_is_terminal) {
      io_.err << "\r\033[K" << std::flush;
    }
  }

 private:
  const uint32_t num_prompts_;
  Io& io_;
  Tally last_;
  bool shown_ = false;
};

absl::Status WriteFile(const std::filesystem::path& path, const std::string& content, bool append = false) {
  std::ofstream file(path, append ? std::ios::binary | std::ios::app : std::ios::binary);
  file << content << std::flush;
  return file ? absl::OkStatus() : absl::UnavailableError(absl::StrCat("cannot write ", path.string()));
}

absl::Status SaveResult(const LoadOptions& options, const RunResult& run, const Report& report) {
  const std::filesystem::path folder = options.result_dir.empty() ? "." : options.result_dir;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const std::string name = options.result_filename.empty() ? ResultFilename(options, report) : options.result_filename;
  const nlohmann::ordered_json json = ReportJson(options, run, report, options.save_detailed);
  absl::Status saved = WriteFile(
      folder / name, json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n", options.append_result);
  if (saved.ok() && options.save_detailed) {
    saved = WriteFile((folder / name).replace_extension("jsonl"), RequestLines(run));
  }
  return saved;
}

absl::Status SaveFiles(const LoadOptions& options, const RunResult& run, const Report& report) {
  absl::Status saved;
  if (options.save_result) {
    saved = SaveResult(options, run, report);
  }
  if (saved.ok() && !options.markdown.empty()) {
    saved = WriteFile(options.markdown, ReportMarkdown(options, run, report));
  }
  if (saved.ok() && !options.html.empty()) {
    saved = WriteFile(options.html, ReportHtml(options, run, report));
  }
  return saved;
}

int UsageError(const absl::Status& status, Io& io) {
  io.err << "quire: " << status.message() << '\n';
  return kExitUsage;
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
    return UsageError(checked, io);
  }
  Interrupt interrupt;
  absl::StatusOr<std::unique_ptr<Backend>> backend = MakeBackend(options);
  if (!backend.ok()) {
    return UsageError(backend.status(), io);
  }
  absl::StatusOr<ServedModel> model = (*backend)->Describe(absl::Seconds(options.ready_check_timeout_s));
  if (!model.ok()) {
    UsageError(model.status(), io);
    return kExitRpcFailed;
  }
  RunShape shape;
  shape.num_requests = options.num_prompts;
  shape.num_warmups = options.num_warmups;
  shape.seed = options.seed;
  shape.arrivals = options.arrivals;
  // Ids of live requests are unique for each tenant: two load tests at once must not meet.
  shape.id_prefix = options.request_id_prefix.empty()
                        ? absl::StrCat("load-", absl::Hex(absl::ToUnixNanos(absl::Now())), "-")
                        : options.request_id_prefix;
  const PromptForm form = MakePromptForm(options, *model, **backend, io);
  absl::StatusOr<Plans> plans = MakePlans(options, shape, form);
  if (!plans.ok()) {
    const int code = UsageError(plans.status(), io);
    return absl::IsUnavailable(plans.status()) ? kExitRpcFailed : code;  // the server does not tokenize
  }
  const auto& [measured, warmup] = *plans;
  if (!warmup.requests.empty()) {
    RunPlan(**backend, warmup, interrupt, std::numeric_limits<double>::infinity(), [](const Tally&) {});
  }
  ProgressLine progress(options, io);
  RunResult run = RunPlan(**backend, measured, interrupt, progress.period_s(),
                          [&progress](const Tally& tally) { progress.Show(tally); });
  progress.Clear();
  if (options.replay_check > 0 && !run.interrupted) {
    run.replay = Replay(options, **backend, measured, run, interrupt);
  }
  const std::string date = absl::FormatTime("%Y%m%d-%H%M%S", absl::Now(), absl::LocalTimeZone());
  const Report report = MakeReport(options, run, model->name, date);
  io.out << ReportTable(options, run, report) << std::flush;
  if (absl::Status saved = SaveFiles(options, run, report); !saved.ok()) {
    return UsageError(saved, io);
  }
  if (report.completed + report.cancelled == 0) {
    return NothingCompleted(run, io);
  }
  std::vector<std::string> misses = Misses(options.assertions, ReportJson(options, run, report, /*detailed=*/false));
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
