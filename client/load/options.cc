#include "client/load/options.h"

#include <CLI/App.hpp>
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/flags.h"
#include "client/parse.h"

namespace quire::client {
namespace {

using Texts = std::vector<std::string>;

CLI::ValidationError Refusal(const char* flag, absl::string_view found, absl::string_view allowed) {
  return CLI::ValidationError(flag, absl::StrCat("'", found, "'; allowed: ", allowed));
}

void CheckOneOf(const char* flag, const std::string& value, const Texts& allowed) {
  if (std::find(allowed.begin(), allowed.end(), value) == allowed.end()) {
    throw Refusal(flag, value, absl::StrJoin(allowed, ", "));
  }
}

// The two sides of "NAME=VALUE"; only the second may be empty. `allowed` is what the user calls it.
std::pair<std::string, std::string> ParseAssignment(const char* flag, const std::string& text,
                                                    absl::string_view allowed) {
  const std::vector<std::string> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
  if (parts.size() != 2 || parts[0].empty()) throw Refusal(flag, text, allowed);
  return {parts[0], parts[1]};
}

// As CLI::PositiveNumber and CLI::NonNegativeNumber, which tell the largest double in full.
bool IsNumber(const std::string& text, double& value) { return absl::SimpleAtod(text, &value) && std::isfinite(value); }
std::string Positive(const std::string& text) {
  double value;
  return IsNumber(text, value) && value > 0 ? "" : absl::StrCat("'", text, "'; allowed: a number above 0");
}
std::string NotNegative(const std::string& text) {
  double value;
  return IsNumber(text, value) && value >= 0 ? "" : absl::StrCat("'", text, "'; allowed: a number above 0, or 0");
}

// CLI::PositiveNumber takes no infinity.
std::string AboveZero(const std::string& text) {
  double value;
  return absl::SimpleAtod(text, &value) && value > 0 ? "" : absl::StrCat("'", text, "'; allowed: above 0, or inf");
}

void AddServerFlags(CLI::App& app, LoadOptions& options) {
  app.add_option_function<std::string>(
      "--backend",
      [&options](const std::string& backend) {
        CheckOneOf("--backend", backend, {"grpc", "vllm-grpc", "openai", "openai-chat"});
        options.backend = backend;
      },
      "Protocol: grpc (quire.v1), vllm-grpc (vllm.grpc.engine.VllmEngine), openai (/v1/completions), openai-chat "
      "(/v1/chat/completions) (default grpc)");
  app.add_option("--base-url", options.base_url,
                 "Server of the openai backends, http[s]://HOST:PORT (default http://127.0.0.1:8000)");
  app.add_option("--endpoint", options.endpoint, "Its path for completions (default: that of the backend)");
  app.add_option("--api-key", options.api_key,
                 "Bearer token of the openai backends (default: the environment's OPENAI_API_KEY, if there is one)");
  app.add_option_function<Texts>(
         "--header",
         [&options](const Texts& texts) {
           for (const std::string& text : texts) {
             const auto [name, value] = ParseAssignment("--header", text, "NAME=VALUE");
             options.headers.push_back(absl::StrCat(name, ": ", value));
           }
         },
         "NAME=VALUE, an HTTP header of every request; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--extra-body", options.extra_body,
                 "JSON object merged into the body of each HTTP request, e.g. '{\"stream_options\": "
                 "{\"continuous_usage_stats\": true}}'");
  app.add_option("--ready-check-timeout-sec", options.ready_check_timeout_s,
                 "Wait this long for the server to answer before the test, in seconds (default 0)")
      ->check(NotNegative);
  app.add_option("--connections", options.connections,
                 "gRPC connections to the server, used in turn (default 1); over HTTP each stream has its own")
      ->check(CLI::Range(1, 1024));
  AddConnectionFlags(app, options.connection);
}

void AddDatasetFlags(CLI::App& app, LoadOptions& options) {
  DatasetOptions& dataset = options.dataset;
  app.add_option_function<std::string>(
      "--dataset-name",
      [&dataset](const std::string& name) {
        CheckOneOf("--dataset-name", name, {"random", "corpus", "custom", "sharegpt", "trace"});
        dataset.name = name;
      },
      "Prompts: random (token ids), corpus (excerpts of the text file --dataset-path), custom (JSON lines "
      "{\"prompt\": ...}), sharegpt (conversations of a JSON array), trace (random ids with the lengths and at the "
      "times "
      "of an Azure, BurstGPT or Mooncake log) (default random)");
  app.add_option("--dataset-path", dataset.path, "File of the dataset");
  app.add_option("--random-input-len,--input-len", dataset.input_len,
                 "Tokens of each prompt, of random and corpus (default 1024)")
      ->check(Positive);
  app.add_option("--random-output-len,--output-len", dataset.output_len, "Tokens to generate for each (default 128)")
      ->check(Positive);
  app.add_option("--random-range-ratio", dataset.range_ratio,
                 "Lengths are drawn evenly from len * (1 - R) to len * (1 + R), R from 0 to below 1 (default 0)");
  app.add_option("--random-prefix-len", dataset.prefix_len,
                 "Tokens that all random prompts share, before their own (default 0)");
  app.add_option("--trace-speedup", dataset.trace_speedup, "Replay a trace so many times as fast (default 1)")
      ->check(Positive);
  app.add_option("--vocab-size", options.vocab_size,
                 "Random ids are below it (default: as the server tells; if it does not, random prompts are words)")
      ->check(Positive);
  app.add_option("--num-prompts", options.num_prompts, "Requests (default 1000)")->check(Positive);
  app.add_option("--num-warmups", options.num_warmups, "Requests before them that are not measured (default 0)");
  app.add_option("--seed", options.seed, "Seed of prompts, arrivals and draws (default 0)")->check(CheckSeed);
}

void AddArrivalFlags(CLI::App& app, LoadOptions& options) {
  app.add_option(
      "--request-rate", options.arrivals.request_rate,
      "Requests a second, sent when due whether answers come or not (open loop); inf sends all at once, or as "
      "--max-concurrency allows (default inf)");
  app.add_option(
         "--burstiness", options.arrivals.burstiness,
         "Shape of the gamma distribution of the gaps: 1 is a Poisson process, less is burstier, inf is constant "
         "(default 1)")
      ->check(AboveZero);
  std::optional<Ramp>& ramp = options.arrivals.ramp;
  const auto the_ramp = [&ramp]() -> Ramp& { return ramp.has_value() ? *ramp : ramp.emplace(); };
  app.add_option_function<std::string>(
      "--ramp-up-strategy",
      [the_ramp](const std::string& strategy) {
        CheckOneOf("--ramp-up-strategy", strategy, {"linear", "exponential"});
        the_ramp().exponential = strategy == "exponential";
      },
      "Let the rate go from --ramp-up-start-rps to --ramp-up-end-rps over the requests, linear or exponential");
  CLI::Option* strategy = app.get_option("--ramp-up-strategy");
  CLI::Option* start = app.add_option_function<double>(
      "--ramp-up-start-rps", [the_ramp](double rps) { the_ramp().start_rps = rps; },
      "Requests a second at the start of the ramp");
  CLI::Option* end = app.add_option_function<double>(
      "--ramp-up-end-rps", [the_ramp](double rps) { the_ramp().end_rps = rps; }, "Requests a second at its end");
  strategy->needs(start, end);
  start->needs(strategy, end)->check(Positive);
  end->needs(strategy, start)->check(Positive);
  app.add_option("--max-concurrency", options.max_concurrency, "Requests under way at most (default: any number)")
      ->check(Positive);
  app.add_option("--max-seconds", options.max_seconds,
                 "Send nothing later than so many seconds after the start; what is under way ends (default: no limit)")
      ->check(Positive);
  app.add_option("--max-errors", options.max_errors,
                 "More failed requests end the run: nothing more is sent, the rest is cancelled (default: any number)");
}

void AddSweepFlags(CLI::App& app, LoadOptions& options) {
  std::optional<SweepOptions>& sweep = options.sweep;
  const auto the_sweep = [&sweep]() -> SweepOptions& { return sweep.has_value() ? *sweep : sweep.emplace(); };
  CLI::Option* profile = app.add_option_function<std::string>(
      "--profile",
      [the_sweep](const std::string& name) {
        CheckOneOf("--profile", name, {"sweep"});
        the_sweep();
      },
      "sweep: find the highest request rate at which the --goodput objectives hold, by stages of doubled rate and then "
      "bisection");
  for (const char* flag : {"--num-prompts", "--request-rate", "--ramp-up-strategy", "--max-seconds", "--max-errors",
                           "--replay-check", "--max-concurrency"}) {
    profile->excludes(app.get_option(flag));
  }
  app.add_option_function<double>(
         "--sweep-start-rps", [the_sweep](double v) { the_sweep().start_rps = v; },
         "Requests a second of the first stage (default 1)")
      ->check(Positive)
      ->needs(profile);
  app.add_option_function<double>(
         "--sweep-stage-seconds", [the_sweep](double v) { the_sweep().stage_seconds = v; },
         "How long a stage sends, in seconds; at least 20 requests (default 30)")
      ->check(Positive)
      ->needs(profile);
  app.add_option_function<double>(
         "--sweep-attainment", [the_sweep](double v) { the_sweep().attainment = v; },
         "Share of a stage's requests that must meet every objective, above 0 to 1 (default 0.95)")
      ->check(CLI::Range(1e-6, 1.0))
      ->needs(profile);
  app.add_option_function<double>(
         "--sweep-precision", [the_sweep](double v) { the_sweep().precision = v; },
         "How well the rate must be known, relative, from 0.001 to 1 (default 0.05)")
      ->check(CLI::Range(0.001, 1.0))
      ->needs(profile);
}

void AddReportFlags(CLI::App& app, LoadOptions& options) {
  app.add_option("--metrics-url", options.metrics_url,
                 "Read the server's Prometheus page beside the load, e.g. http://127.0.0.1:9400/metrics or HOST:PORT");
  app.add_option("--metrics-interval", options.metrics_interval_s, "Seconds between two readings (default 0.5)")
      ->check(CLI::Range(0.01, 3600.0));
  app.add_option_function<std::string>(
      "--percentile-metrics",
      [&options](const std::string& text) {
        options.percentile_metrics = absl::StrSplit(text, ',');
        for (const std::string& metric : options.percentile_metrics) {
          CheckOneOf("--percentile-metrics", metric, {"ttft", "tpot", "itl", "e2el"});
        }
      },
      "Metrics in the table (default ttft,tpot,itl,e2el)");
  app.add_option_function<std::string>(
      "--metric-percentiles",
      [&options](const std::string& text) {
        options.metric_percentiles.clear();
        for (absl::string_view part : absl::StrSplit(text, ',')) {
          double percent;
          if (!absl::SimpleAtod(part, &percent) || !(percent > 0 && percent < 100)) {
            throw Refusal("--metric-percentiles", part, "numbers above 0 and below 100, as 50,99,99.9");
          }
          options.metric_percentiles.push_back(percent);
        }
      },
      "Percentiles in the result (default 50,90,95,99,99.9)");
  app.add_option_function<Texts>(
      "--goodput",
      [&options](const Texts& texts) {
        for (const std::string& text : texts) {
          const auto objective = ParseObjective(text);
          if (!objective.ok()) {
            throw CLI::ValidationError("--goodput", std::string(objective.status().message()));
          }
          options.goodput.push_back(*objective);
        }
      },
      "Objectives as METRIC:MS of ttft, tpot, e2el, e.g. ttft:200 tpot:50; goodput counts the requests that meet all");
}

void AddMixFlag(CLI::App& app, const char* flag, Mix& mix, bool durations, const char* description) {
  app.add_option_function<std::string>(
      flag,
      [flag, &mix, durations](const std::string& text) {
        absl::StatusOr<Mix> parsed = ParseMix(text);
        if (!parsed.ok()) {
          throw CLI::ValidationError(flag, std::string(parsed.status().message()));
        }
        for (const auto& [name, weight] : *parsed) {
          if (const auto duration = ParseDuration(name); durations && !duration.ok()) {
            throw CLI::ValidationError(flag, std::string(duration.status().message()));
          }
        }
        mix = *std::move(parsed);
      },
      description);
}

// What no server likes.
void AddTroubleFlags(CLI::App& app, LoadOptions& options) {
  app.add_option("--request-cancellation-rate", options.cancellation_percent,
                 "Percent of the requests to cancel, each when a random number of its tokens has come (default 0)")
      ->check(CLI::Range(0.0, 100.0));
  app.add_option("--read-delay-ms", options.read_delay_ms,
                 "Read each stream slowly: wait so long before each next message (default 0)")
      ->check(CLI::Range(0.0, 60000.0));
  AddMixFlag(app, "--tenant-mix", options.tenant_mix, false,
             "Tenants by weight, e.g. a:20,b:1; each request draws one, and the result counts them apart");
  AddMixFlag(app, "--deadline-mix", options.deadline_mix, true,
             "Deadlines by weight, e.g. 500ms:20,5s:80; each request draws one");
  app.add_option("--replay-check", options.replay_check,
                 "After the run repeat so many of its requests alone; exit code 3 if the token ids of one are others "
                 "(default 0)");
}

void AddFileFlags(CLI::App& app, LoadOptions& options) {
  app.add_option_function<Texts>(
         "--assert",
         [&options](const Texts& texts) {
           for (const std::string& text : texts) {
             const auto assertion = ParseAssertion(text);
             if (!assertion.ok()) {
               throw CLI::ValidationError("--assert", std::string(assertion.status().message()));
             }
             options.assertions.push_back(*assertion);
           }
         },
         "KEY<NUMBER (or <=, >, >=) with a key of the JSON result, e.g. 'p99_ttft_ms<500'; exit code 3 if it does not "
         "hold; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--html", options.html, "Write a report with charts to this file, as one HTML page");
  app.add_option("--markdown", options.markdown, "Write a summary to this file, as Markdown");
  app.add_flag("--save-result", options.save_result, "Write the result as a JSON file");
  app.add_flag("--save-detailed", options.save_detailed,
               "With --save-result: each request's figures too, in the file and as JSON lines beside it");
  app.add_flag("--append-result", options.append_result,
               "With --save-result: add the result to the file as one more line");
  app.add_option("--result-dir", options.result_dir, "Folder of the file (default: the current one)");
  app.add_option("--result-filename", options.result_filename,
                 "Its name (default {label}-{rate}qps-concurrency{N}-{model}-{date}.json)");
  app.add_option("--label", options.label, "Label of the result (default: the backend)");
  app.add_option("--request-id-prefix", options.request_id_prefix,
                 "Request ids begin with it (default: one of this run alone)");
  app.add_option_function<Texts>(
      "--metadata",
      [&options](const Texts& texts) {
        for (const std::string& text : texts) {
          options.metadata.push_back(ParseAssignment("--metadata", text, "KEY=VALUE"));
        }
      },
      "KEY=VALUE to add to the result; several may follow");
}

}  // namespace

absl::StatusOr<std::pair<std::string, double>> ParseObjective(absl::string_view text) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  double bound_ms;
  const bool known = parts[0] == "ttft" || parts[0] == "tpot" || parts[0] == "e2el";
  if (parts.size() != 2 || !known || !absl::SimpleAtod(parts[1], &bound_ms) || !(bound_ms > 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "'; allowed: METRIC:MS with a metric of ttft, tpot, e2el"));
  }
  return std::make_pair(parts[0], bound_ms);
}

absl::StatusOr<Mix> ParseMix(absl::string_view text) {
  Mix mix;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    const size_t colon = part.rfind(':');
    double weight;
    if (colon == absl::string_view::npos || colon == 0 || !absl::SimpleAtod(part.substr(colon + 1), &weight) ||
        !(weight > 0) || std::isinf(weight)) {
      return absl::InvalidArgumentError(absl::StrCat("'", part, "'; allowed: NAME:WEIGHT,... with weights above 0"));
    }
    mix.emplace_back(std::string(part.substr(0, colon)), weight);
  }
  return mix;
}

void AddLoadFlags(CLI::App& app, LoadOptions& options) {
  AddServerFlags(app, options);
  AddDatasetFlags(app, options);
  AddArrivalFlags(app, options);
  options.request.mutable_sampling()->set_temperature(0);
  AddSamplingFlags(app, *options.request.mutable_sampling());
  app.get_option("--temperature")
      ->description("0 to 100; 0 is greedy (default 0); above it, request i draws with seed + i");
  app.add_flag("--ignore-eos", options.ignore_eos,
               "Generate the full length whatever the model says (random prompts: always)");
  AddSchedulingFlags(app, options.request);
  AddTroubleFlags(app, options);
  AddSweepFlags(app, options);
  AddReportFlags(app, options);
  AddFileFlags(app, options);
}

bool IsHttp(const LoadOptions& options) { return absl::StartsWith(options.backend, "openai"); }

namespace {

// What the backend's protocol cannot say is refused by the name of its flag.
absl::Status CheckBackend(const LoadOptions& options) {
  const bool http = IsHttp(options), dialect = options.backend == "vllm-grpc";
  const v1::SchedulingOptions& scheduling = options.request.scheduling();
  const struct {
    const char* flag;
    bool given;
    bool allowed;
  } kFlags[] = {
      {"--base-url", !options.base_url.empty(), http},
      {"--endpoint", !options.endpoint.empty(), http},
      {"--api-key", !options.api_key.empty(), http},
      {"--header", !options.headers.empty(), http},
      {"--extra-body", !options.extra_body.empty(), http},
      {"--target", options.connection.target != ConnectionOptions().target, !http},
      {"--connections", options.connections != 1, !http},
      {"--tls", options.connection.tls, !http},
      {"--priority", scheduling.has_priority(), !dialect},
      {"--cache-salt", !options.request.cache().salt().empty(), !dialect},
      {"--tenant", !scheduling.tenant().empty(), !dialect && !http},
      {"--tenant-mix", !options.tenant_mix.empty(), !dialect && !http},
      {"--max-queue-time", scheduling.has_max_queue_time(), !dialect && !http},
      {"--time-limit", scheduling.has_time_limit(), !dialect && !http},
      {"--bypass-prefix-cache", options.request.cache().bypass_prefix_cache(), !dialect && !http},
      {"--allowed-token-ids", options.request.sampling().allowed_token_ids_size() > 0, !dialect},
  };
  for (const auto& flag : kFlags) {
    if (flag.given && !flag.allowed) {
      return absl::InvalidArgumentError(
          absl::StrCat(flag.flag, " is not for --backend ", options.backend,
                       flag.flag == absl::string_view("--tls") ? ": --base-url says https://" : ""));
    }
  }
  if (!options.extra_body.empty() &&
      !nlohmann::json::parse(options.extra_body, nullptr, /*allow_exceptions=*/false).is_object()) {
    return absl::InvalidArgumentError(absl::StrCat("--extra-body '", options.extra_body, "'; allowed: a JSON object"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckLoadOptions(const LoadOptions& options) {
  if (absl::Status checked = CheckBackend(options); !checked.ok()) {
    return checked;
  }
  const DatasetOptions& dataset = options.dataset;
  if (!(dataset.range_ratio >= 0 && dataset.range_ratio < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--random-range-ratio ", dataset.range_ratio, "; allowed: from 0 to below 1"));
  }
  if ((dataset.name == "random") != dataset.path.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("--dataset-name ", dataset.name,
                                                   dataset.path.empty() ? " needs" : " takes no", " --dataset-path"));
  }
  if (dataset.name != "random" && dataset.prefix_len > 0) {
    return absl::InvalidArgumentError("--random-prefix-len is for --dataset-name random");
  }
  if (!(options.arrivals.request_rate > 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--request-rate ", options.arrivals.request_rate, "; allowed: a number above 0, or inf"));
  }
  if ((options.save_detailed || options.append_result) && !options.save_result) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.save_detailed ? "--save-detailed" : "--append-result", " needs --save-result"));
  }
  if (options.arrivals.ramp.has_value() && std::isfinite(options.arrivals.request_rate)) {
    return absl::InvalidArgumentError("--ramp-up-strategy takes no --request-rate: the rate is the ramp's");
  }
  if (!options.tenant_mix.empty() && !options.request.scheduling().tenant().empty()) {
    return absl::InvalidArgumentError("--tenant-mix takes no --tenant");
  }
  if (!options.deadline_mix.empty() && options.connection.timeout.has_value()) {
    return absl::InvalidArgumentError("--deadline-mix takes no --timeout");
  }
  if (options.sweep.has_value() && (options.goodput.empty() || dataset.name == "trace")) {
    return absl::InvalidArgumentError(
        absl::StrCat("--profile sweep ", options.goodput.empty() ? "needs --goodput, the objectives that must hold"
                                                                 : "takes no trace: the rates are the sweep's"));
  }
  if (options.save_detailed && options.append_result) {
    return absl::InvalidArgumentError("--append-result keeps one line for each run: it takes no --save-detailed");
  }
  return absl::OkStatus();
}

}  // namespace quire::client
