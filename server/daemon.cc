#include "server/daemon.h"

#include <spdlog/spdlog.h>

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "engine/load_model.h"
#include "engine/model_config.h"
#include "server/generation_config.h"
#include "server/model_info.h"

namespace quire {
namespace {

// How long streams that were ended may take to tell their clients.
constexpr absl::Duration kFarewell = absl::Milliseconds(500);

// Events of the prefix cache that wait for the thread that tells subscribers of them.
constexpr size_t kMaxKvEvents = 65536;

// Says once a second how far loading has come. A signal ends the process then and there: nothing is served yet that
// could be drained, and the rest of a large model takes minutes.
LoadModelProgress WatchProgress(ShutdownSignal& signal) {
  return [&signal, last = absl::Now()](uint64_t bytes, uint64_t of_bytes) mutable {
    if (signal.Wait(absl::InfinitePast()) == ShutdownSignal::Event::kSignal) {
      spdlog::info("signal: stopped while loading");
      std::_Exit(0);
    }
    if (absl::Now() - last < absl::Seconds(1)) return;
    last = absl::Now();
    constexpr double kGib = 1 << 30;
    spdlog::info("loading     {:.1f} of {:.1f} GiB of weights", static_cast<double>(bytes) / kGib,
                 static_cast<double>(of_bytes) / kGib);
  };
}

Metrics::Info MetricsInfo(const v1::GetModelResponse& model, bool enable_prefix_caching) {
  Metrics::Info info;
  info.model_name = model.name();
  info.block_size = static_cast<int32_t>(model.block_size());
  info.num_blocks = static_cast<int32_t>(model.num_blocks());
  info.max_model_len = static_cast<int32_t>(model.max_model_len());
  info.kv_cache_dtype = model.kv_cache_dtype();
  info.enable_prefix_caching = enable_prefix_caching;
  return info;
}

GenerationOptions ServiceOptions(const Options& options, RequestLimits limits) {
  GenerationOptions result;
  result.limits = std::move(limits);
  result.block_size = options.engine.block_size;
  result.enable_prefix_caching = options.engine.enable_prefix_caching;
  result.default_timeout = options.default_timeout;
  result.max_unsent_tokens = options.max_unsent_tokens;
  return result;
}

SchedulerOptions WithKvEvents(SchedulerOptions options, KvEventLog* kv_events) {
  options.kv_events = kv_events;
  return options;
}

std::unique_ptr<SpanExporter> MakeSpanExporter(const Options& options, const v1::GetModelResponse& model,
                                               Metrics& metrics) {
  if (options.otlp_url.empty()) return nullptr;
  SpanExporterOptions spans;
  spans.url = options.otlp_url;
  spans.sampling_ratio = options.otlp_sampling_ratio;
  spans.model_name = model.name();
  return std::make_unique<SpanExporter>(std::move(spans), metrics);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Daemon>> Daemon::Start(const Options& options, ShutdownSignal& signal) {
  // What is cheap to read is read first: a mistake shows before the weights are loaded.
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(options.engine.model);
  if (!config.ok()) return config.status();
  absl::StatusOr<std::string> name = ServedName(options.served_model_name, options.engine.model);
  if (!name.ok()) return name.status();
  const auto vocab_size = static_cast<uint32_t>(config->vocab_size);
  absl::StatusOr<GenerationConfig> generation =
      LoadGenerationConfig(options.engine.model, options.use_generation_config, vocab_size);
  if (!generation.ok()) return generation.status();
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(options.engine.model);
  if (!tokenizer.ok()) return tokenizer.status();
  std::unique_ptr<AuthTokens> tokens;
  if (!options.auth_token_file.empty()) {
    absl::StatusOr<std::unique_ptr<AuthTokens>> loaded = AuthTokens::Load(options.auth_token_file);
    if (!loaded.ok()) return loaded.status();
    tokens = *std::move(loaded);
  }
  std::shared_ptr<grpc::ServerCredentials> credentials;
  if (!options.tls.cert.empty()) {
    absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> tls = TlsCredentials(options.tls);
    if (!tls.ok()) return tls.status();
    credentials = *std::move(tls);
  }
  absl::StatusOr<LoadedModel> model = LoadModel(options.engine, WatchProgress(signal));
  if (!model.ok()) return model.status();

  RequestLimits limits;
  limits.model_name = *std::move(name);
  limits.vocab_size = vocab_size;
  limits.max_model_len = static_cast<uint32_t>(model->plan.max_model_len);
  limits.max_text_bytes = size_t{limits.max_model_len} * (*tokenizer)->max_token_bytes();
  limits.default_sampling = generation->sampling;
  limits.eos_ids = std::move(generation->eos_ids);
  limits.has_priorities = options.engine.scheduling_policy == SchedulingPolicy::kPriority;
  std::unique_ptr<Daemon> daemon(
      new Daemon(options, signal, *std::move(model), *std::move(tokenizer), std::move(tokens), std::move(limits)));
  if (absl::Status status = daemon->Listen(std::move(credentials)); !status.ok()) return status;
  return daemon;
}

Daemon::Daemon(const Options& options, ShutdownSignal& signal, LoadedModel model, std::unique_ptr<Tokenizer> tokenizer,
               std::unique_ptr<AuthTokens> tokens, RequestLimits limits)
    : options_(options),
      signal_(signal),
      model_(DescribeModel(limits.model_name, model.config, model.plan, model.backend_description)),
      tokenizer_(std::move(tokenizer)),
      authenticator_(std::move(tokens)),
      metrics_(MetricsInfo(model_, options.engine.enable_prefix_caching)),
      log_(options.log_format),
      spans_(MakeSpanExporter(options, model_, metrics_)),
      detokenizer_(*tokenizer_, metrics_, log_, spans_.get()),
      kv_event_log_(options.kv_events ? std::make_unique<KvEventLog>(kMaxKvEvents) : nullptr),
      engine_(WithKvEvents(model.plan.scheduler, kv_event_log_.get()), options.engine.max_waiting_requests,
              options.engine.max_waiting_tokens, std::move(model.runner), &detokenizer_),
      live_(options.write_timeout),
      pool_(TokenizerPool::Options()),
      rate_(options.max_call_rate),
      generation_service_(
          {*tokenizer_, engine_, detokenizer_, pool_, live_, metrics_, rate_, spans_.get(), &authenticator_},
          ServiceOptions(options, std::move(limits))),
      model_service_(model_, &authenticator_),
      kv_event_feed_(options.kv_events ? std::make_unique<KvEventFeed>(*kv_event_log_, options.engine.block_size)
                                       : nullptr),
      vllm_service_({generation_service_, engine_, live_, authenticator_, [this] { return ready_ && !failed_; },
                     kv_event_feed_.get()},
                    model_, options.engine.model, options.engine.max_num_seqs),
      heartbeat_(options.step_timeout) {
  detokenizer_.Start([this](RequestId id, uint32_t index) { engine_.Stop(id, index); },
                     [this](const absl::Status& status) {
                       LogError(absl::StrCat("the engine failed: ", status.message()));
                       failed_ = true;
                       signal_.Ring();
                     });
  for (const absl::string_view line : absl::StrSplit(PlanText(model_, model.plan), '\n', absl::SkipEmpty())) {
    spdlog::info("{}", std::string(line));
  }
}

absl::Status Daemon::Listen(std::shared_ptr<grpc::ServerCredentials> credentials) {
  // The admin listener first: probes get their "not ready" while gRPC starts.
  AdminServer::Pages pages;
  pages.metrics = [this] { return metrics_.Text(engine_.snapshot()); };
  pages.live = [this] { return !failed_ && heartbeat_.Beats(absl::Now(), engine_.snapshot()); };
  pages.ready = [this] { return ready_.load(); };
  absl::StatusOr<std::unique_ptr<AdminServer>> admin = AdminServer::Start(options_.admin_listen, std::move(pages));
  if (!admin.ok()) return admin.status();
  admin_server_ = *std::move(admin);

  grpc::Service* const services[] = {&generation_service_, &model_service_, &vllm_service_};
  if (options_.health_listen) {
    auto health = RpcServer::Start({.address = *options_.health_listen, .flag = "--health-listen"}, {});
    if (!health.ok()) return health.status();
    health_server_ = *std::move(health);
  }
  RpcServerOptions rpc_options{.address = options_.listen, .limits = options_.rpc_limits};
  // gRPC's reflection cannot ask for a token.
  rpc_options.reflection = options_.reflection && options_.auth_token_file.empty();
  rpc_options.credentials = std::move(credentials);
  absl::StatusOr<std::unique_ptr<RpcServer>> rpc = RpcServer::Start(rpc_options, services);
  if (!rpc.ok()) return rpc.status();
  rpc_server_ = *std::move(rpc);
  SetReady(true);
  return absl::OkStatus();
}

std::string Daemon::ReadyLine() const {
  const ListenAddress grpc{options_.listen.host, rpc_server_->port()};
  const ListenAddress admin{options_.admin_listen.host, admin_server_->port()};
  return absl::StrCat("quired ready grpc=", grpc.ToString(), " admin=", admin.ToString(), " model=", model_.name());
}

void Daemon::SetReady(bool ready) {
  ready_ = ready;
  rpc_server_->SetReady(ready);
  if (health_server_ != nullptr) health_server_->SetReady(ready);
}

int Daemon::Run() {
  const ShutdownSignal::Event event = signal_.Wait(absl::InfiniteFuture());
  if (event == ShutdownSignal::Event::kSignal) {
    spdlog::info("signal: draining {} requests", live_.size());
    Drain();
  }
  SetReady(false);
  Stop();
  spdlog::info("stopped");
  return failed_ ? 2 : 0;
}

void Daemon::Drain() {
  SetReady(false);
  if (options_.drain_delay > absl::ZeroDuration() &&
      signal_.Wait(absl::Now() + options_.drain_delay) != ShutdownSignal::Event::kTimeout) {
    return;
  }
  live_.Close([this] {
    empty_ = true;
    signal_.Ring();
  });
  if (!WaitUntilEmpty(absl::Now() + options_.drain_timeout) && !failed_) {
    spdlog::warn("cutting {} requests", live_.size());
  }
}

bool Daemon::WaitUntilEmpty(absl::Time deadline) {
  while (!empty_ && !failed_) {
    if (signal_.Wait(deadline) != ShutdownSignal::Event::kBell) return false;
  }
  return empty_;
}

void Daemon::Stop() {
  if (std::exchange(stopped_, true)) return;
  if (rpc_server_ != nullptr) rpc_server_->SetLive(!failed_);
  if (health_server_ != nullptr) health_server_->SetLive(!failed_);
  live_.Close([] {});
  pool_.Shutdown();
  engine_.Shutdown();
  detokenizer_.Shutdown();  // every call has its last event now
  if (kv_event_feed_ != nullptr) kv_event_feed_->Shutdown();
  if (rpc_server_ != nullptr) rpc_server_->Shutdown(kFarewell);
  if (health_server_ != nullptr) health_server_->Shutdown(kFarewell);
  if (spans_ != nullptr) spans_->Shutdown();
  admin_server_.reset();
}

Daemon::~Daemon() { Stop(); }

}  // namespace quire
