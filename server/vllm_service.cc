#include "server/vllm_service.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "server/contained.h"
#include "server/errors.h"
#include "server/rpc_message.h"
#include "server/vllm_dialect.h"

namespace quire {
namespace {

namespace vllm = ::vllm::grpc::engine;
namespace smg = ::smg::grpc::common;

constexpr size_t kChunkBytes = size_t{64} << 10;

// The model's path is nobody's business: it goes by its name.
vllm::GetModelInfoResponse ModelInfo(const v1::GetModelResponse& model, const RequestLimits& limits) {
  vllm::GetModelInfoResponse info;
  info.set_model_path(model.name());
  info.set_served_model_name(model.name());
  info.set_tokenizer_path(model.name());
  info.set_is_generation(true);
  info.set_max_context_length(model.max_model_len());
  info.set_max_req_input_len(static_cast<int32_t>(model.max_model_len()) - 1);
  info.set_vocab_size(model.vocab_size());
  info.set_model_type(model.family());
  info.add_architectures(model.family());
  for (const uint32_t id : limits.eos_ids) info.add_eos_token_ids(static_cast<int32_t>(id));
  const SamplingParams& sampling = limits.default_sampling;
  info.set_default_sampling_params_json(absl::StrFormat(
      R"({"temperature": %g, "top_k": %d, "top_p": %g, "min_p": %g, "repetition_penalty": %g})", sampling.temperature,
      sampling.top_k, sampling.top_p, sampling.min_p, sampling.repetition_penalty));
  return info;
}

// A stream that ends with a status before its first message.
template <typename Message>
class RefusedStream final : public grpc::ServerWriteReactor<Message> {
 public:
  explicit RefusedStream(const absl::Status& status) { this->Finish(ToGrpcStatus(status)); }
  void OnDone() override { delete this; }
};

// The archive in parts. It outlives the stream.
class ArchiveStream final : public grpc::ServerWriteReactor<smg::GetTokenizerChunk> {
 public:
  explicit ArchiveStream(const TokenizerArchive& archive) : archive_(archive) { Next(); }
  void OnWriteDone(bool ok) override { ok ? Next() : Finish(grpc::Status::CANCELLED); }
  void OnDone() override { delete this; }

 private:
  void Next() {
    if (sent_ == archive_.bytes.size()) return Finish(grpc::Status::OK);
    const size_t size = std::min(kChunkBytes, archive_.bytes.size() - sent_);
    chunk_.set_data(archive_.bytes.data() + sent_, size);
    sent_ += size;
    if (sent_ == archive_.bytes.size()) chunk_.set_sha256(archive_.sha256);
    StartWrite(&chunk_);
  }

  const TokenizerArchive& archive_;
  smg::GetTokenizerChunk chunk_;
  size_t sent_ = 0;
};

}  // namespace

VllmService::VllmService(const VllmParts& parts, const v1::GetModelResponse& model, std::string model_directory,
                         int32_t max_num_seqs)
    : parts_(parts),
      model_info_(ModelInfo(model, parts.generation.limits())),
      model_directory_(std::move(model_directory)),
      block_size_(static_cast<int32_t>(model.block_size())),
      max_num_seqs_(max_num_seqs),
      start_(absl::Now()),
      archive_(absl::UnknownError("not made yet")),
      throughput_time_(start_) {}

grpc::ServerWriteReactor<grpc::ByteBuffer>* VllmService::Generate(grpc::CallbackServerContext* context,
                                                                  const grpc::ByteBuffer* bytes) {
  last_receive_us_.store(absl::ToUnixMicros(absl::Now()), std::memory_order_relaxed);
  const auto encoder = std::make_shared<std::optional<VllmEncoder>>();
  GenerationService::Dialect dialect;
  dialect.rpc_service = "vllm.grpc.engine.VllmEngine";
  dialect.field_name = VllmFieldName;
  dialect.parse = [encoder, max_model_len = model_info_.max_context_length()](
                      const grpc::ByteBuffer& from) -> absl::StatusOr<v1::GenerateRequest> {
    vllm::GenerateRequest request;
    if (absl::Status status = ParseMessage(from, request); !status.ok()) return status;
    const bool stream = request.stream();
    absl::StatusOr<v1::GenerateRequest> result = FromVllm(std::move(request), max_model_len);
    if (!result.ok()) return result.status();
    encoder->emplace(stream, result->tokens().ids_size() > 0 ? result->tokens().ids(0) : 0);
    return result;
  };
  dialect.encode = [encoder](v1::GenerateResponse response, std::deque<grpc::ByteBuffer>& out) {
    std::vector<vllm::GenerateResponse> responses;
    (*encoder)->Encode(std::move(response), responses);
    for (const vllm::GenerateResponse& r : responses) out.push_back(SerializeMessage(r));
  };
  return parts_.generation.Generate(context, *bytes, std::move(dialect));
}

template <typename Fill>
grpc::ServerUnaryReactor* VllmService::Answer(grpc::CallbackServerContext* context, const Fill& fill) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const absl::Status status = Contained([&]() -> absl::Status {
    const absl::StatusOr<Principal> caller = parts_.authenticator.Check(*context);
    if (!caller.ok()) return caller.status();
    return fill(*caller);
  });
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

grpc::ServerUnaryReactor* VllmService::Embed(grpc::CallbackServerContext* context, const vllm::EmbedRequest*,
                                             vllm::EmbedResponse*) {
  return Answer(context,
                [](const Principal&) { return NotSupported("Embed", "the served model makes no embeddings"); });
}

grpc::ServerUnaryReactor* VllmService::HealthCheck(grpc::CallbackServerContext* context,
                                                   const vllm::HealthCheckRequest*,
                                                   vllm::HealthCheckResponse* response) {
  const bool healthy = parts_.healthy();
  response->set_healthy(healthy);
  response->set_message(healthy ? "ready" : "not ready: draining or failed");
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* VllmService::Abort(grpc::CallbackServerContext* context, const vllm::AbortRequest* request,
                                             vllm::AbortResponse*) {
  return Answer(context, [&](const Principal& caller) {
    for (const std::string& id : request->request_ids()) parts_.live.Cancel(ScopedRequestId(caller, id));
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* VllmService::GetModelInfo(grpc::CallbackServerContext* context,
                                                    const vllm::GetModelInfoRequest*,
                                                    vllm::GetModelInfoResponse* response) {
  return Answer(context, [&](const Principal&) {
    *response = model_info_;
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* VllmService::GetServerInfo(grpc::CallbackServerContext* context,
                                                     const vllm::GetServerInfoRequest*,
                                                     vllm::GetServerInfoResponse* response) {
  return Answer(context, [&](const Principal&) {
    response->set_active_requests(static_cast<uint32_t>(parts_.live.size()));
    response->set_is_paused(false);
    response->set_last_receive_timestamp(static_cast<double>(last_receive_us_.load(std::memory_order_relaxed)) * 1e-6);
    response->set_uptime_seconds(absl::ToDoubleSeconds(absl::Now() - start_));
    response->set_server_type("vllm-grpc");
    response->set_data_parallel_size(1);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* VllmService::GetLoads(grpc::CallbackServerContext* context, const vllm::GetLoadsRequest*,
                                                vllm::GetLoadsResponse* response) {
  return Answer(context, [&](const Principal&) {
    const absl::Time now = absl::Now();
    const EngineSnapshot snapshot = parts_.engine.snapshot();
    const SchedulerStats& s = snapshot.scheduler;
    response->set_timestamp(absl::FormatTime(absl::RFC3339_full, now, absl::UTCTimeZone()));
    response->set_version(QUIRE_VERSION);
    response->set_dp_rank_count(1);
    vllm::SchedulerLoad& load = *response->add_loads();
    load.set_num_running_reqs(s.num_running);
    load.set_num_waiting_reqs(parts_.engine.num_waiting());
    load.set_num_total_reqs(load.num_running_reqs() + load.num_waiting_reqs());
    load.set_num_used_tokens(s.blocks_held * block_size_);
    load.set_max_total_num_tokens(snapshot.num_blocks * block_size_);
    load.set_token_usage(snapshot.num_blocks == 0 ? 0 : double(s.blocks_held) / snapshot.num_blocks);
    load.set_gen_throughput(Throughput(s.sampled_tokens, now));
    load.set_cache_hit_rate(s.prefix_queries == 0 ? 0 : double(s.prefix_hits) / double(s.prefix_queries));
    load.set_utilization(std::max(load.token_usage(), double(s.num_running) / max_num_seqs_));
    load.set_max_running_requests(max_num_seqs_);
    return absl::OkStatus();
  });
}

double VllmService::Throughput(uint64_t sampled_tokens, absl::Time now) {
  const std::lock_guard lock(throughput_mutex_);
  if (const absl::Duration passed = now - throughput_time_; passed >= absl::Seconds(1)) {
    throughput_ = static_cast<double>(sampled_tokens - throughput_tokens_) / absl::ToDoubleSeconds(passed);
    throughput_tokens_ = sampled_tokens;
    throughput_time_ = now;
  }
  return throughput_;
}

const absl::StatusOr<TokenizerArchive>& VllmService::Archive() {
  std::call_once(archive_made_, [this] { archive_ = MakeTokenizerArchive(model_directory_); });
  return archive_;
}

grpc::ServerWriteReactor<smg::GetTokenizerChunk>* VllmService::GetTokenizer(grpc::CallbackServerContext* context,
                                                                            const smg::GetTokenizerRequest*) {
  if (const absl::Status status = parts_.authenticator.Check(*context).status(); !status.ok()) {
    return new RefusedStream<smg::GetTokenizerChunk>(status);
  }
  const absl::Status made = Contained([this] { return Archive().status(); });
  if (!made.ok()) return new RefusedStream<smg::GetTokenizerChunk>(made);
  return new ArchiveStream(*Archive());
}

grpc::ServerWriteReactor<smg::KvEventBatch>* VllmService::SubscribeKvEvents(
    grpc::CallbackServerContext* context, const smg::SubscribeKvEventsRequest* request) {
  const absl::StatusOr<Principal> caller = parts_.authenticator.Check(*context);
  absl::Status status = caller.status();
  if (status.ok() && parts_.kv_events == nullptr) {
    status = NotSupported("SubscribeKvEvents", "KV events are off: they need --kv-events");
  } else if (status.ok() && caller->tenant) {
    status = absl::PermissionDeniedError("KV events tell of all tenants' prompts: a token without a tenant is needed");
  }
  KvEventFeed::Reactor* stream = nullptr;
  if (status.ok()) {
    status = Contained([&] {
      stream = parts_.kv_events->Subscribe(request->start_sequence_number());
      return absl::OkStatus();
    });
  }
  return stream != nullptr ? stream : new RefusedStream<smg::KvEventBatch>(status);
}

}  // namespace quire
