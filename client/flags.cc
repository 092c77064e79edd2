#include "client/flags.h"

#include <CLI/App.hpp>
#include <cstdint>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/parse.h"

namespace quire::client {
namespace {

// The value, or the refusal of the flag that CLI11 shows.
template <typename T>
T ValueOrThrow(const char* flag, absl::StatusOr<T> value) {
  if (!value.ok()) {
    throw CLI::ValidationError(flag, std::string(value.status().message()));
  }
  return *std::move(value);
}

void SetDuration(const char* flag, const std::string& text, google::protobuf::Duration& field) {
  const absl::Duration duration = ValueOrThrow(flag, ParseDuration(text));
  field.set_seconds(absl::ToInt64Seconds(duration));
  field.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration - absl::Seconds(field.seconds()))));
}

}  // namespace

std::string CheckSeed(const std::string& text) {
  uint64_t seed;
  if (absl::SimpleAtoi(text, &seed)) {
    return "";
  }
  return absl::StrCat("'", text, "' is no seed; allowed: a whole number from 0 to 18446744073709551615");
}

void AddConnectionFlags(CLI::App& app, ConnectionOptions& options) {
  app.add_option("--target", options.target, "Address of the daemon, HOST:PORT (default 127.0.0.1:50051)");
  app.add_option("--model", options.model, "Name of the served model (default: whichever it is)");
  app.add_flag("--tls", options.tls, "Use TLS and trust the system's authorities (implied by the flags below)");
  app.add_option("--tls-ca", options.tls_ca, "PEM file of the authorities to trust");
  app.add_option("--tls-cert", options.tls_cert, "PEM file of the client's own certificate, for mutual TLS");
  app.add_option("--tls-key", options.tls_key, "PEM file of its key");
  app.add_option("--token-file", options.token_file, "File whose first token is sent as the bearer token");
  app.add_option_function<std::string>(
      "--timeout",
      [&options](const std::string& text) { options.timeout = ValueOrThrow("--timeout", ParseDuration(text)); },
      "Deadline of each RPC, e.g. 250ms, 5s, 2m (default: none)");
}

void AddSamplingFlags(CLI::App& app, v1::SamplingParams& sampling) {
  v1::SamplingParams* p = &sampling;
  app.add_option_function<float>(
      "--temperature", [p](float v) { p->set_temperature(v); }, "0 to 100; 0 is greedy (default: the server's)");
  app.add_option_function<uint32_t>(
      "--top-k", [p](uint32_t v) { p->set_top_k(v); },
      "Only the k most probable tokens; 0 is off (default: the server's)");
  app.add_option_function<float>(
      "--top-p", [p](float v) { p->set_top_p(v); },
      "Only the most probable tokens that reach this probability, above 0 to 1 (default: the server's)");
  app.add_option_function<float>(
      "--min-p", [p](float v) { p->set_min_p(v); },
      "Only tokens this likely relative to the most probable one, 0 to 1 (default: the server's)");
  app.add_option_function<float>(
      "--repetition-penalty", [p](float v) { p->set_repetition_penalty(v); }, "Above 0 to 100 (default: the server's)");
  app.add_option_function<float>(
      "--frequency-penalty", [p](float v) { p->set_frequency_penalty(v); }, "-2 to 2 (default: the server's)");
  app.add_option_function<float>(
      "--presence-penalty", [p](float v) { p->set_presence_penalty(v); }, "-2 to 2 (default: the server's)");
  app.add_option_function<std::vector<std::string>>(
         "--logit-bias",
         [p](const std::vector<std::string>& texts) {
           for (const std::string& text : texts) {
             const auto [id, bias] = ValueOrThrow("--logit-bias", ParseLogitBias(text));
             (*p->mutable_logit_bias())[id] = bias;
           }
         },
         "ID=BIAS, -100 to 100, added to a token's logit; may be repeated")
      ->allow_extra_args(false);
  app.add_option_function<std::string>(
      "--allowed-token-ids",
      [p](const std::string& text) {
        for (uint32_t id : ValueOrThrow("--allowed-token-ids", ParseTokenIds(text))) {
          p->add_allowed_token_ids(id);
        }
      },
      "Only these tokens, as 1,2,3 (default: all)");
}

void AddStoppingFlags(CLI::App& app, v1::StoppingCriteria& stopping) {
  v1::StoppingCriteria* p = &stopping;
  app.add_option_function<uint32_t>(
      "--max-tokens", [p](uint32_t v) { p->set_max_tokens(v); },
      "Tokens to generate at most (default: to the context's end)");
  app.add_option_function<uint32_t>(
      "--min-tokens", [p](uint32_t v) { p->set_min_tokens(v); }, "Tokens before which nothing stops (default 0)");
  app.add_option_function<std::vector<std::string>>(
         "--stop", [p](const std::vector<std::string>& stops) { p->mutable_stop()->Add(stops.begin(), stops.end()); },
         "Text that ends the output; may be repeated, up to 16 times")
      ->allow_extra_args(false);
  app.add_option_function<std::string>(
      "--stop-token-ids",
      [p](const std::string& text) {
        for (uint32_t id : ValueOrThrow("--stop-token-ids", ParseTokenIds(text))) {
          p->add_stop_token_ids(id);
        }
      },
      "Tokens that end the output, as 1,2,3");
  app.add_flag_callback(
      "--include-stop", [p] { p->set_include_stop(true); }, "Show the text that stopped the output");
  app.add_flag_callback(
      "--ignore-eos", [p] { p->set_ignore_eos(true); }, "Go on after the end-of-sequence token");
}

void AddSchedulingFlags(CLI::App& app, v1::GenerateRequest& request) {
  v1::SchedulingOptions* p = request.mutable_scheduling();
  app.add_option_function<int32_t>(
      "--priority", [p](int32_t v) { p->set_priority(v); }, "Lower runs first (default 0)");
  app.add_option_function<std::string>(
      "--tenant", [p](const std::string& v) { p->set_tenant(v); }, "On whose account (default: the token's)");
  app.add_option_function<std::string>(
      "--max-queue-time",
      [p](const std::string& text) { SetDuration("--max-queue-time", text, *p->mutable_max_queue_time()); },
      "Give up if the request still waits after this time, e.g. 500ms (default: none)");
  app.add_option_function<std::string>(
      "--time-limit", [p](const std::string& text) { SetDuration("--time-limit", text, *p->mutable_time_limit()); },
      "Stop with what there is after this time, e.g. 5s (default: none)");
  v1::CacheOptions* cache = request.mutable_cache();
  app.add_option_function<std::string>(
      "--cache-salt", [cache](const std::string& v) { cache->set_salt(v); },
      "Share cached prefixes only with requests of the same salt (default: the empty one)");
  app.add_flag_callback(
      "--bypass-prefix-cache", [cache] { cache->set_bypass_prefix_cache(true); },
      "Neither read nor feed the prefix cache");
}

}  // namespace quire::client
