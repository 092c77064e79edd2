#include "client/load/session.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/load/grpc_backend.h"
#include "client/load/live_view.h"
#include "client/load/openai_backend.h"
#include "client/load/server_metrics.h"
#include "client/load/sweep.h"

namespace quire::client {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

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
  const RunResult again = RunPlan(backend, alone, interrupt, kNever, [](const Tally&) {});
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

}  // namespace

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

absl::StatusOr<Session> Session::Begin(const LoadOptions& options, Backend& backend, Interrupt& interrupt, Io& io) {
  absl::StatusOr<ServedModel> model = backend.Describe(absl::Seconds(options.ready_check_timeout_s));
  if (!model.ok()) {
    return model.status();
  }
  return Session(options, backend, interrupt, io, *std::move(model));
}

Session::Session(const LoadOptions& options, Backend& backend, Interrupt& interrupt, Io& io, ServedModel model)
    : options_(options),
      backend_(backend),
      interrupt_(interrupt),
      io_(io),
      model_(std::move(model)),
      form_(MakePromptForm(options, model_, backend, io)),
      // Ids of live requests are unique for each tenant: two load tests at once must not meet.
      id_prefix_(options.request_id_prefix.empty()
                     ? absl::StrCat("load-", absl::Hex(absl::ToUnixNanos(absl::Now())), "-")
                     : options.request_id_prefix) {}

absl::StatusOr<LoadOutcome> Session::Run() {
  RunShape shape;
  shape.num_requests = options_.num_prompts;
  shape.num_warmups = options_.num_warmups;
  shape.seed = options_.seed;
  shape.arrivals = options_.arrivals;
  shape.id_prefix = id_prefix_;
  size_t failures = 0;
  return RunOnce(options_, shape, absl::StrCat("quire load: ", model_.name, " over ", options_.backend),
                 [this, &failures](const RequestResult& request) {
                   failures += request.failed() ? 1 : 0;
                   return options_.max_errors.has_value() && failures > *options_.max_errors;
                 });
}

absl::StatusOr<LoadOutcome> Session::RunOnce(const LoadOptions& options, const RunShape& shape,
                                             const std::string& title,
                                             const std::function<bool(const RequestResult&)>& gives_up) {
  absl::StatusOr<Plans> plans = MakePlans(options, shape, form_);
  if (!plans.ok()) {
    return plans.status();
  }
  if (!plans->warmup.requests.empty()) {
    RunPlan(backend_, plans->warmup, interrupt_, kNever, [](const Tally&) {});
  }
  plans->measured.gives_up = gives_up;
  LiveView view(title, shape.num_requests, io_);
  std::unique_ptr<MetricsReader> metrics;
  if (!options.metrics_url.empty()) {
    metrics = std::make_unique<MetricsReader>(options.metrics_url, options.metrics_interval_s);
  }
  LoadOutcome outcome;
  outcome.options = options;
  outcome.run = RunPlan(backend_, plans->measured, interrupt_, view.period_s(), [&](const Tally& tally) {
    view.Show(tally, metrics == nullptr ? std::nullopt : metrics->latest());
  });
  view.Clear();
  if (metrics != nullptr) {
    outcome.run.server = metrics->Stop();
  }
  if (options.replay_check > 0 && !outcome.run.interrupted) {
    outcome.run.replay = Replay(options, backend_, plans->measured, outcome.run, interrupt_);
  }
  const std::string date = absl::FormatTime("%Y%m%d-%H%M%S", absl::Now(), absl::LocalTimeZone());
  outcome.report = MakeReport(options, outcome.run, model_.name, date);
  return outcome;
}

absl::StatusOr<LoadOutcome> Session::RunStage(double rate, size_t index) {
  LoadOptions options = options_;
  options.arrivals.request_rate = rate;
  options.num_prompts = static_cast<uint32_t>(StageRequests(*options.sweep, rate));
  RunShape shape;
  shape.num_requests = options.num_prompts;
  shape.num_warmups = index == 0 ? options.num_warmups : 0;
  // Prompts that no stage before had: a prefix cache must not help.
  shape.seed = options.seed + 1000003 * index;
  shape.arrivals = options.arrivals;
  shape.id_prefix = absl::StrCat(id_prefix_, index, "-");
  const size_t allowed = MissesAllowed(*options.sweep, shape.num_requests);
  size_t misses = 0;
  absl::StatusOr<LoadOutcome> outcome =
      RunOnce(options, shape, absl::StrFormat("quire load: stage %d, %.2f requests/s", index + 1, rate),
              [&](const RequestResult& request) {
                misses += request.ok() && MeetsObjectives(request, options_.goodput) ? 0 : 1;
                return misses > allowed;
              });
  if (outcome.ok()) {
    outcome->report.sweep = {Summarize(*options.sweep, rate, shape.num_requests, outcome->run, outcome->report)};
  }
  return outcome;
}

absl::StatusOr<LoadOutcome> Session::Sweep() {
  RateSearch search(options_.sweep->start_rps, options_.sweep->precision);
  std::vector<SweepStage> stages;
  std::optional<LoadOutcome> reported;
  for (std::optional<double> rate = search.Next(); rate.has_value(); rate = search.Next()) {
    absl::StatusOr<LoadOutcome> outcome = RunStage(*rate, stages.size());
    if (!outcome.ok()) {
      return outcome.status();
    }
    const SweepStage stage = outcome->report.sweep.front();
    stages.push_back(stage);
    io_.err << (stages.size() == 1 ? StageHeader() : "") << StageLine(stage) << std::flush;
    search.Tell(*rate, stage.holds);
    const bool interrupted = outcome->run.interrupted;
    if (!reported.has_value() || stage.holds || !search.best().has_value() || interrupted) {
      if (!interrupted || !reported.has_value()) {
        reported = *std::move(outcome);
      }
      reported->run.interrupted = interrupted;
    }
    if (interrupted) {
      break;
    }
  }
  std::sort(stages.begin(), stages.end(), [](const SweepStage& a, const SweepStage& b) { return a.rate < b.rate; });
  reported->report.sweep = std::move(stages);
  return *std::move(reported);
}

}  // namespace quire::client
