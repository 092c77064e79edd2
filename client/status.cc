#include "client/status.h"

#include <chrono>
#include <condition_variable>
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
#include "client/load_view.h"
#include "client/model.h"
#include "client/scrape.h"

namespace quire::client {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kRefreshSeconds = 1;

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

// The load, or nullopt and why. Another daemon may answer at the admin address: the model's name must agree.
std::optional<LoadView> ReadLoad(const std::string& address, const std::string& model_name, std::string& why_not) {
  const absl::StatusOr<std::string> page = HttpGet(address, "/metrics");
  if (!page.ok()) {
    why_not = std::string(page.status().message());
    return std::nullopt;
  }
  const std::vector<Sample> samples = ParsePrometheus(*page);
  for (const Sample& sample : samples) {
    const auto label = sample.labels.find("model_name");
    if (label != sample.labels.end() && label->second != model_name) {
      why_not = absl::StrCat(address, " serves another model, '", label->second, "'");
      return std::nullopt;
    }
  }
  return LoadView(samples);
}

// One look at the daemon.
struct Seen {
  Json daemon;  // {"target", "health", "model", "admin"}
  std::optional<LoadView> load;
  std::string why_no_load;
  std::chrono::steady_clock::time_point time;
};

grpc::Status Look(const Connection& connection, const std::string& admin, Seen& seen) {
  v1::GetModelResponse model;
  if (grpc::Status status = GetModel(connection, &model); !status.ok()) {
    return status;
  }
  std::string health;
  if (grpc::Status status = CheckHealth(connection, &health); !status.ok()) {
    health = CodeName(status.error_code());
  }
  seen.daemon = {
      {"target", connection.options().target}, {"health", health}, {"model", ModelJson(model)}, {"admin", admin}};
  seen.load = ReadLoad(admin, model.name(), seen.why_no_load);
  seen.time = std::chrono::steady_clock::now();
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

std::string Screen(const Seen& seen, const std::optional<Seen>& before) {
  const Json& model = seen.daemon["model"];
  const double block_bytes = model["block_size"].get<double>() * model["kv_bytes_per_token"].get<double>();
  std::string text = absl::StrFormat(
      "quire    %s at %s: %s\n"
      "model    %s (%s), %d layers, %d query heads on %d KV heads of %d, vocabulary %d, weights %s\n"
      "context  %d tokens\n"
      "KV       %d blocks of %d tokens, %s a token (%s), %s in all\n"
      "backend  %s\n",
      model["version"].get<std::string>(), seen.daemon["target"].get<std::string>(),
      seen.daemon["health"].get<std::string>(), model["name"].get<std::string>(), model["family"].get<std::string>(),
      model["layers"].get<uint32_t>(), model["q_heads"].get<uint32_t>(), model["kv_heads"].get<uint32_t>(),
      model["head_dim"].get<uint32_t>(), model["vocab_size"].get<uint32_t>(), model["weight_dtype"].get<std::string>(),
      model["max_model_len"].get<uint32_t>(), model["num_blocks"].get<uint64_t>(), model["block_size"].get<uint32_t>(),
      Bytes(model["kv_bytes_per_token"].get<double>()), model["kv_cache_dtype"].get<std::string>(),
      Bytes(model["num_blocks"].get<double>() * block_bytes), model["backend"].get<std::string>());
  if (!seen.load) return absl::StrCat(text, "load     n/a (", seen.why_no_load, ")\n");
  const bool has_before = before && before->load;
  const double seconds = has_before ? std::chrono::duration<double>(seen.time - before->time).count() : 0;
  return absl::StrCat(text, seen.load->Screen(has_before ? &*before->load : nullptr, seconds));
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
  std::optional<Seen> before;
  do {
    Seen seen;
    if (const grpc::Status status = Look(*connection, AdminAddress(options), seen); !status.ok()) {
      io.err << "quire: " << Describe(status) << '\n';
      return kExitRpcFailed;
    }
    if (options.json) {
      Json json = seen.daemon;
      json["load"] = seen.load ? seen.load->ToJson() : Json(nullptr);
      io.out << json.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
    } else {
      // On a terminal each screen replaces the one before: cursor home, then erase what is below.
      io.out << (options.watch && io.out_is_terminal ? "\033[H\033[J" : "") << Screen(seen, before);
    }
    io.out << std::flush;
    before = std::move(seen);
  } while (pause.has_value() && pause->Wait());
  return kExitOk;
}

}  // namespace quire::client
