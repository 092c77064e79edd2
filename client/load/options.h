// The flags of `quire load`, named as those of `vllm bench serve`.

#ifndef QUIRE_CLIENT_LOAD_OPTIONS_H_
#define QUIRE_CLIENT_LOAD_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "client/channel.h"
#include "client/load/arrivals.h"
#include "client/load/assertion.h"
#include "client/load/dataset.h"
#include "quire/v1/generation.pb.h"

namespace CLI {
class App;
}

namespace quire::client {

// Texts, and of how many requests each is relative to the others.
using Mix = std::vector<std::pair<std::string, double>>;

struct SweepOptions {
  double start_rps = 1;
  double stage_seconds = 30;
  double attainment = 0.95;  // share of a stage's requests that must meet every objective
  double precision = 0.05;   // relative; the search ends when it knows the rate so well
};

struct LoadOptions {
  ConnectionOptions connection;
  std::string backend = "grpc";  // grpc, vllm-grpc, openai, openai-chat
  uint32_t connections = 1;      // of gRPC: the requests take them in turn
  // Of HTTP.
  std::string base_url;
  std::string endpoint;              // empty: the usual one
  std::string api_key;               // empty: none
  std::vector<std::string> headers;  // "Name: value"
  std::string extra_body;            // a JSON object; empty: none
  double ready_check_timeout_s = 0;

  DatasetOptions dataset;
  ArrivalOptions arrivals;
  uint32_t num_prompts = 1000;
  uint32_t num_warmups = 0;
  std::optional<uint32_t> vocab_size;  // absent: as the server tells
  std::optional<double> max_seconds;   // nothing is sent later
  std::optional<uint32_t> max_errors;  // more failed requests end the run
  std::optional<SweepOptions> sweep;   // in place of num_prompts and a rate
  std::string metrics_url;             // of the server's Prometheus page; empty: none
  double metrics_interval_s = 0.5;
  std::optional<uint32_t> max_concurrency;
  uint64_t seed = 0;
  std::string request_id_prefix;    // empty: one that no other run has
  double cancellation_percent = 0;  // of the requests, each after a number of tokens that the seed draws
  double read_delay_ms = 0;
  Mix tenant_mix;             // tenants; empty: the request's
  Mix deadline_mix;           // durations as ParseDuration reads them; empty: the connection's
  uint32_t replay_check = 0;  // requests to repeat alone behind the run
  // Sampling, scheduling and cache options of every request; prompt, lengths, seed and id are each request's own.
  v1::GenerateRequest request;
  bool ignore_eos = false;

  std::vector<std::string> percentile_metrics = {"ttft", "tpot", "itl", "e2el"};
  std::vector<double> metric_percentiles = {50, 90, 95, 99, 99.9};
  std::vector<std::pair<std::string, double>> goodput;  // metric, ms
  std::vector<Assertion> assertions;
  bool save_result = false;
  bool save_detailed = false;
  bool append_result = false;
  std::string result_dir;
  std::string result_filename;
  std::string label;
  std::string markdown;  // file; empty: none
  std::string html;      // the same
  std::vector<std::pair<std::string, std::string>> metadata;
};

// Whether the backend speaks HTTP; else gRPC.
bool IsHttp(const LoadOptions& options);

void AddLoadFlags(CLI::App& app, LoadOptions& options);

// What flags together may not say.
absl::Status CheckLoadOptions(const LoadOptions& options);

// "ttft:200": a metric of ttft, tpot, e2el and its bound in milliseconds.
absl::StatusOr<std::pair<std::string, double>> ParseObjective(absl::string_view text);

// "a:20,b:1".
absl::StatusOr<Mix> ParseMix(absl::string_view text);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_OPTIONS_H_
