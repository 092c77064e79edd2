#include "client/status.h"

#include <chrono>
#include <cmath>
#include <condition_variable>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/errors.h"
#include "client/health.h"
#include "client/interrupt.h"
#include "client/model.h"
#include "client/scrape.h"

namespace quire::client {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kRefreshSeconds = 1;

// A figure of the metrics page and its name in --json.
struct Figure {
  const char* name;
  const char* metric;
  const char* state;  // of this label only; null: all
};

constexpr Figure kFigures[] = {
    {"running", "vllm:num_requests_running", nullptr},
    {"waiting", "vllm:num_requests_waiting", nullptr},
    {"kv_cache_usage", "vllm:kv_cache_usage_perc", nullptr},
    {"kv_blocks_free", "quire_kv_blocks", "free"},
    {"kv_blocks_held", "quire_kv_blocks", "held"},
    {"kv_blocks_cached", "quire_kv_blocks", "cached"},
    {"prompt_tokens", "vllm:prompt_tokens_total", nullptr},
    {"generation_tokens", "vllm:generation_tokens_total", nullptr},
    {"preemptions", "vllm:num_preemptions_total", nullptr},
    {"prefix_cache_queries", "vllm:prefix_cache_queries_total", nullptr},
    {"prefix_cache_hits", "vllm:prefix_cache_hits_total", nullptr},
};

std::string AdminAddress(const StatusOptions& options) {
  const std::string& target = options.connection.target;
  return options.admin.empty() ? absl::StrCat(target.substr(0, target.rfind(':')), ":9400") : options.admin;
}

Json ModelJson(const v1::GetModelResponse& model) {
  return {{"name", model.name()},
          {"family", model.family()},
          {"vocab_size", model.vocab_size()},
          {"max_model_len", model.max_model_len()},
          {"layers", model.layers()},
          {"q_heads", model.q_heads()},
          {"kv_heads", model.kv_heads()},
          {"head_dim", model.head_dim()},
          {"block_size", model.block_size()},
          {"num_blocks", model.num_blocks()},
          {"kv_bytes_per_token", model.kv_bytes_per_token()},
          {"kv_cache_dtype", model.kv_cache_dtype()},
          {"weight_dtype", model.weight_dtype()},
          {"backend", model.backend()},
          {"version", model.version()}};
}

// A count as an integer: Prometheus text has floating point only.
Json NumberJson(double value) {
  constexpr double kExact = int64_t{1} << 53;  // integers below it are exact
  const bool is_count = value == std::floor(value) && std::abs(value) < kExact;
  return is_count ? Json(static_cast<int64_t>(value)) : Json(value);
}

// The load, or null and why. Another daemon may answer at the admin address: the model's name must agree.
Json LoadJson(const std::string& address, const std::string& model_name, std::string& why_not) {
  const absl::StatusOr<std::string> page = HttpGet(address, "/metrics");
  if (!page.ok()) {
    why_not = std::string(page.status().message());
    return nullptr;
  }
  const std::vector<Sample> samples = ParsePrometheus(*page);
  for (const Sample& sample : samples) {
    const auto label = sample.labels.find("model_name");
    if (label != sample.labels.end() && label->second != model_name) {
      why_not = absl::StrCat(address, " serves another model, '", label->second, "'");
      return nullptr;
    }
  }
  Json load = Json::object();
  for (const Figure& figure : kFigures) {
    std::map<std::string, std::string> labels;
    if (figure.state != nullptr) {
      labels["state"] = figure.state;
    }
    const std::optional<double> value = SumOf(samples, figure.metric, labels);
    load[figure.name] = value.has_value() ? NumberJson(*value) : Json(nullptr);
  }
  return load;
}

// One look at the daemon: {"target", "health", "model", "load", "admin"}.
grpc::Status Look(const Connection& connection, const std::string& admin, Json& seen, std::string& why_not) {
  v1::GetModelResponse model;
  if (grpc::Status status = GetModel(connection, &model); !status.ok()) {
    return status;
  }
  std::string health;
  if (grpc::Status status = CheckHealth(connection, &health); !status.ok()) {
    health = CodeName(status.error_code());
  }
  seen = {{"target", connection.options().target}, {"health", health}, {"model", ModelJson(model)}, {"admin", admin}};
  seen["load"] = LoadJson(admin, model.name(), why_not);
  return grpc::Status::OK;
}

std::string Bytes(double bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  for (; bytes >= 1024 && unit < 4; ++unit) {
    bytes /= 1024;
  }
  return absl::StrFormat(unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
}

// A figure of the load as text; "n/a" if it is missing.
std::string Number(const Json& load, const char* name) {
  return load.is_object() && load[name].is_number() ? absl::StrFormat("%.0f", load[name].get<double>()) : "n/a";
}

// Growth of a counter for each second between two looks; empty if one of them lacks it.
std::string Rate(const Json& load, const Json& before, const char* name) {
  if (!before.is_object() || !load[name].is_number() || !before[name].is_number()) {
    return "";
  }
  return absl::StrFormat(" (%.0f/s)", (load[name].get<double>() - before[name].get<double>()) / kRefreshSeconds);
}

std::string LoadScreen(const Json& load, const Json& before) {
  std::string text = absl::StrFormat("load     %s running, %s waiting, %s preemptions\n", Number(load, "running"),
                                     Number(load, "waiting"), Number(load, "preemptions"));
  if (load["kv_cache_usage"].is_number()) {
    absl::StrAppendFormat(&text, "cache    %.1f%% used: %s blocks held, %s cached, %s free\n",
                          100 * load["kv_cache_usage"].get<double>(), Number(load, "kv_blocks_held"),
                          Number(load, "kv_blocks_cached"), Number(load, "kv_blocks_free"));
  }
  absl::StrAppendFormat(&text, "tokens   %s of prompts%s, %s generated%s\n", Number(load, "prompt_tokens"),
                        Rate(load, before, "prompt_tokens"), Number(load, "generation_tokens"),
                        Rate(load, before, "generation_tokens"));
  return text;
}

std::string Screen(const Json& seen, const Json& before, const std::string& why_not) {
  const Json& model = seen["model"];
  const double block_bytes = model["block_size"].get<double>() * model["kv_bytes_per_token"].get<double>();
  std::string text = absl::StrFormat(
      "quire    %s at %s: %s\n"
      "model    %s (%s), %d layers, %d query heads on %d KV heads of %d, vocabulary %d, weights %s\n"
      "context  %d tokens\n"
      "KV       %d blocks of %d tokens, %s a token (%s), %s in all\n"
      "backend  %s\n",
      model["version"].get<std::string>(), seen["target"].get<std::string>(), seen["health"].get<std::string>(),
      model["name"].get<std::string>(), model["family"].get<std::string>(), model["layers"].get<uint32_t>(),
      model["q_heads"].get<uint32_t>(), model["kv_heads"].get<uint32_t>(), model["head_dim"].get<uint32_t>(),
      model["vocab_size"].get<uint32_t>(), model["weight_dtype"].get<std::string>(),
      model["max_model_len"].get<uint32_t>(), model["num_blocks"].get<uint64_t>(), model["block_size"].get<uint32_t>(),
      Bytes(model["kv_bytes_per_token"].get<double>()), model["kv_cache_dtype"].get<std::string>(),
      Bytes(model["num_blocks"].get<double>() * block_bytes), model["backend"].get<std::string>());
  if (seen["load"].is_null()) {
    absl::StrAppend(&text, "load     n/a (", why_not, ")\n");
  } else {
    absl::StrAppend(&text, LoadScreen(seen["load"], before.is_object() ? before["load"] : Json()));
  }
  return text;
}

// Sleeps for one refresh; false if interrupted meanwhile.
class Pause {
 public:
  explicit Pause(Interrupt& interrupt) : interrupt_(interrupt) {
    interrupt_.SetHandler([this] {
      std::lock_guard<std::mutex> lock(mutex_);
      interrupted_ = true;
      wake_.notify_all();
    });
  }
  ~Pause() { interrupt_.SetHandler(nullptr); }

  bool Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    return !wake_.wait_for(lock, std::chrono::seconds(kRefreshSeconds), [this] { return interrupted_; });
  }

 private:
  Interrupt& interrupt_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool interrupted_ = false;  // guarded by mutex_
};

}  // namespace

int RunStatus(const StatusOptions& options, Io& io) {
  std::optional<Interrupt> interrupt;  // before gRPC starts its threads; without --watch a signal just ends the process
  std::optional<Pause> pause;
  if (options.watch) {
    pause.emplace(interrupt.emplace());
  }
  absl::StatusOr<Connection> connection = Connection::Create(options.connection);
  if (!connection.ok()) {
    io.err << "quire: " << connection.status().message() << '\n';
    return kExitUsage;
  }
  Json before;
  do {
    Json seen;
    std::string why_not;
    if (const grpc::Status status = Look(*connection, AdminAddress(options), seen, why_not); !status.ok()) {
      io.err << "quire: " << Describe(status) << '\n';
      return kExitRpcFailed;
    }
    if (options.json) {
      io.out << seen.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
    } else {
      // On a terminal each screen replaces the one before: cursor home, then erase what is below.
      io.out << (options.watch && io.out_is_terminal ? "\033[H\033[J" : "") << Screen(seen, before, why_not);
    }
    io.out << std::flush;
    before = std::move(seen);
  } while (pause.has_value() && pause->Wait());
  return kExitOk;
}

}  // namespace quire::client
