#include "client/load/load.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/errors.h"
#include "client/interrupt.h"
#include "client/load/report.h"
#include "client/load/runner.h"
#include "client/model.h"
#include "client/parse.h"
#include "quire/v1/generation.grpc.pb.h"

namespace quire::client {
namespace {

// On a terminal the line replaces itself; elsewhere each one stays, so they are few.
constexpr double kTerminalProgressSeconds = 0.25;
constexpr double kLogProgressSeconds = 10;

absl::StatusOr<std::vector<Connection>> Connect(const LoadOptions& options) {
  std::vector<Connection> connections;
  for (uint32_t i = 0; i < options.connections; ++i) {
    absl::StatusOr<Connection> connection = Connection::Create(options.connection);
    if (!connection.ok()) {
      return connection.status();
    }
    connections.push_back(*std::move(connection));
  }
  return connections;
}

TokenizeText TokenizeOver(const Connection& connection) {
  return [&connection](const std::string& text) -> absl::StatusOr<std::vector<uint32_t>> {
    grpc::ClientContext context;
    connection.Prepare(context);
    v1::TokenizeRequest request;
    request.set_text(text);
    request.set_add_special_tokens(false);
    v1::TokenizeResponse response;
    const grpc::Status status =
        v1::GenerationService::NewStub(connection.channel())->Tokenize(&context, request, &response);
    if (!status.ok()) {
      return absl::UnavailableError(absl::StrCat("Tokenize: ", Describe(status)));
    }
    return std::vector<uint32_t>(response.ids().begin(), response.ids().end());
  };
}

// The request of prompt `index`: what all share, and its own prompt, lengths, id and seed.
v1::GenerateRequest MakeRequest(const LoadOptions& options, const std::string& id_prefix, const Prompt& prompt,
                                size_t index) {
  v1::GenerateRequest request = options.request;
  request.set_model(options.connection.model);
  request.set_request_id(absl::StrCat(id_prefix, index));
  if (prompt.ids.empty()) {
    request.set_text(prompt.text);
  } else {
    request.mutable_tokens()->mutable_ids()->Add(prompt.ids.begin(), prompt.ids.end());
  }
  request.mutable_stopping()->set_max_tokens(prompt.output_len);
  const bool is_random = options.dataset.name == "random" || options.dataset.name == "trace";
  request.mutable_stopping()->set_ignore_eos(options.ignore_eos || is_random);
  request.mutable_sampling()->set_seed(options.seed + index);
  request.mutable_output()->set_text(true);
  return request;
}

// One of the mix's texts, each as often as its weight says.
class MixDraw {
 public:
  explicit MixDraw(const Mix& mix) : mix_(mix) {
    std::vector<double> weights;
    for (const auto& [text, weight] : mix) {
      weights.push_back(weight);
    }
    index_ = std::discrete_distribution<size_t>(weights.begin(), weights.end());
  }

  const std::string& operator()(std::mt19937_64& random) { return mix_[index_(random)].first; }

 private:
  const Mix& mix_;
  std::discrete_distribution<size_t> index_;
};

// Gives each measured request its tenant, its deadline and its end before the time, as far as they are asked for.
void DrawTroubles(const LoadOptions& options, std::vector<PlannedRequest>& requests) {
  std::mt19937_64 random(options.seed + 0x9E3779B97F4A7C15);  // of another sequence than prompts and arrivals
  MixDraw tenant(options.tenant_mix), deadline(options.deadline_mix);
  std::bernoulli_distribution cancel(options.cancellation_percent / 100);
  for (PlannedRequest& planned : requests) {
    if (!options.tenant_mix.empty()) {
      planned.request.mutable_scheduling()->set_tenant(tenant(random));
    }
    if (!options.deadline_mix.empty()) {
      planned.deadline = ParseDuration(deadline(random)).value();
    }
    if (cancel(random)) {
      const uint32_t most = std::max(1u, planned.request.stopping().max_tokens());
      planned.cancel_after_tokens = std::uniform_int_distribution<uint32_t>(1, most)(random);
    }
  }
}

// The measured requests, and behind them those of the warm-up.
absl::StatusOr<std::pair<LoadPlan, LoadPlan>> MakePlans(const LoadOptions& options, uint32_t vocab_size,
                                                        const Connection& connection) {
  const size_t total = size_t{options.num_prompts} + options.num_warmups;
  absl::StatusOr<std::vector<Prompt>> prompts =
      MakePrompts(options.dataset, total, vocab_size, options.seed, TokenizeOver(connection));
  if (!prompts.ok()) {
    return prompts.status();
  }
  // Ids of live requests are unique for each tenant: two load tests at once must not meet.
  const std::string id_prefix = options.request_id_prefix.empty()
                                    ? absl::StrCat("load-", absl::Hex(absl::ToUnixNanos(absl::Now())), "-")
                                    : options.request_id_prefix;
  LoadPlan measured, warmup;
  for (size_t i = 0; i < total; ++i) {
    (i < options.num_prompts ? measured : warmup)
        .requests.push_back({MakeRequest(options, id_prefix, (*prompts)[i], i), 0, std::nullopt});
  }
  DrawTroubles(options, measured.requests);
  measured.keep_token_ids = options.replay_check > 0;
  measured.read_delay = absl::Milliseconds(options.read_delay_ms);
  measured.max_concurrency = warmup.max_concurrency = options.max_concurrency;
  measured.keep_text = options.save_detailed;
  if (options.dataset.name == "trace" && !options.arrivals.open_loop()) {
    for (size_t i = 0; i < options.num_prompts; ++i) {
      measured.arrivals_s.push_back((*prompts)[i].arrival_s);
    }
  } else if (options.arrivals.open_loop()) {
    // Of another sequence than the prompts', which begin from the seed itself.
    measured.arrivals_s = ArrivalTimes(options.num_prompts, options.arrivals, ~options.seed);
  }
  return std::make_pair(std::move(measured), std::move(warmup));
}

// Repeats completed requests of the run, spread over it, one after the other and compares their token ids.
ReplayOutcome Replay(const LoadOptions& options, const std::vector<Connection>& connections, const LoadPlan& plan,
                     const RunResult& run, Interrupt& interrupt) {
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
  alone.keep_token_ids = true;
  for (size_t i = 0; i < count; ++i) {
    sample.push_back(completed[i * completed.size() / count]);
    v1::GenerateRequest request = plan.requests[sample.back()].request;
    request.set_request_id(absl::StrCat(request.request_id(), "-replay"));
    alone.requests.push_back({std::move(request), 0, std::nullopt});
  }
  const RunResult again =
      RunPlan(connections, alone, interrupt, std::numeric_limits<double>::infinity(), [](const Tally&) {});
  ReplayOutcome outcome;
  for (size_t i = 0; i < again.requests.size(); ++i) {
    const RequestResult& first = run.requests[sample[i]];
    if (again.requests[i].ok()) {
      ++outcome.checked;
    }
    if (again.requests[i].ok() && again.requests[i].token_ids != first.token_ids) {
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

int RpcError(const grpc::Status& status, Io& io) {
  io.err << "quire: " << Describe(status) << '\n';
  return kExitRpcFailed;
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
  absl::StatusOr<std::vector<Connection>> connections = Connect(options);
  if (!connections.ok()) {
    return UsageError(connections.status(), io);
  }
  const Connection& first = connections->front();
  if (options.ready_check_timeout_s > 0) {
    first.channel()->WaitForConnected(std::chrono::system_clock::now() +
                                      std::chrono::milliseconds(std::llround(1e3 * options.ready_check_timeout_s)));
  }
  v1::GetModelResponse model;
  if (grpc::Status status = GetModel(first, &model); !status.ok()) {
    return RpcError(status, io);
  }
  absl::StatusOr<std::pair<LoadPlan, LoadPlan>> plans = MakePlans(options, model.vocab_size(), first);
  if (!plans.ok()) {
    const int code = UsageError(plans.status(), io);
    return absl::IsUnavailable(plans.status()) ? kExitRpcFailed : code;  // the server does not tokenize
  }
  const auto& [measured, warmup] = *plans;
  if (!warmup.requests.empty()) {
    RunPlan(*connections, warmup, interrupt, std::numeric_limits<double>::infinity(), [](const Tally&) {});
  }
  ProgressLine progress(options, io);
  RunResult run = RunPlan(*connections, measured, interrupt, progress.period_s(),
                          [&progress](const Tally& tally) { progress.Show(tally); });
  progress.Clear();
  if (options.replay_check > 0 && !run.interrupted) {
    run.replay = Replay(options, *connections, measured, run, interrupt);
  }
  const std::string date = absl::FormatTime("%Y%m%d-%H%M%S", absl::Now(), absl::LocalTimeZone());
  const Report report = MakeReport(options, run, model.name(), date);
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
      misses.push_back(absl::StrCat("request ", id, ", repeated alone, gave other token ids"));
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
