// VllmService: the dialect vllm.grpc.engine.VllmEngine, which the gateway SMG and the llm-d endpoint picker speak. A
// call to Generate walks the same way as one of quire.v1; only its messages differ (server/vllm_dialect.h).
//
// Embed answers UNIMPLEMENTED: no model that is served makes embeddings. SubscribeKvEvents does where no feed is given:
// events carry the tokens of everybody's prompts, so the operator must ask for them, and a caller bound to a tenant
// gets none.
//
// Thread: any.

#ifndef QUIRE_SERVER_VLLM_SERVICE_H_
#define QUIRE_SERVER_VLLM_SERVICE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "quire/v1/model.pb.h"
#include "server/authenticator.h"
#include "server/generation_service.h"
#include "server/kv_event_feed.h"
#include "server/live_requests.h"
#include "server/tokenizer_archive.h"
#include "vllm/engine.grpc.pb.h"

namespace quire {

// What the service works with; all outlive it.
struct VllmParts {
  GenerationService& generation;
  Engine& engine;
  LiveRequests& live;
  const Authenticator& authenticator;
  std::function<bool()> healthy;
  KvEventFeed* kv_events = nullptr;
};

using RawVllmService =
    vllm::grpc::engine::VllmEngine::WithRawCallbackMethod_Generate<vllm::grpc::engine::VllmEngine::CallbackService>;

class VllmService final : public RawVllmService {
 public:
  // `model_directory`: where GetTokenizer finds its files. `max_num_seqs`: of the scheduler.
  VllmService(const VllmParts& parts, const v1::GetModelResponse& model, std::string model_directory,
              int32_t max_num_seqs);

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* bytes) override;
  grpc::ServerUnaryReactor* Embed(grpc::CallbackServerContext* context, const vllm::grpc::engine::EmbedRequest*,
                                  vllm::grpc::engine::EmbedResponse*) override;
  // Without a token: gateways ask it to find out whom they speak to.
  grpc::ServerUnaryReactor* HealthCheck(grpc::CallbackServerContext* context,
                                        const vllm::grpc::engine::HealthCheckRequest*,
                                        vllm::grpc::engine::HealthCheckResponse* response) override;
  grpc::ServerUnaryReactor* Abort(grpc::CallbackServerContext* context, const vllm::grpc::engine::AbortRequest* request,
                                  vllm::grpc::engine::AbortResponse*) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const vllm::grpc::engine::GetModelInfoRequest*,
                                         vllm::grpc::engine::GetModelInfoResponse* response) override;
  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context,
                                          const vllm::grpc::engine::GetServerInfoRequest*,
                                          vllm::grpc::engine::GetServerInfoResponse* response) override;
  grpc::ServerUnaryReactor* GetLoads(grpc::CallbackServerContext* context, const vllm::grpc::engine::GetLoadsRequest*,
                                     vllm::grpc::engine::GetLoadsResponse* response) override;
  grpc::ServerWriteReactor<smg::grpc::common::GetTokenizerChunk>* GetTokenizer(
      grpc::CallbackServerContext* context, const smg::grpc::common::GetTokenizerRequest*) override;
  grpc::ServerWriteReactor<smg::grpc::common::KvEventBatch>* SubscribeKvEvents(
      grpc::CallbackServerContext* context, const smg::grpc::common::SubscribeKvEventsRequest* request) override;

 private:
  // Answers a unary call: with what `fill` leaves, once the caller has shown who he is.
  template <typename Fill>
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, const Fill& fill);

  // Tokens per second since this was asked last, a second ago at least.
  double Throughput(uint64_t sampled_tokens, absl::Time now);
  // The archive, made at the first call.
  const absl::StatusOr<TokenizerArchive>& Archive();

  const VllmParts parts_;
  const vllm::grpc::engine::GetModelInfoResponse model_info_;
  const std::string model_directory_;
  const int32_t block_size_;
  const int32_t max_num_seqs_;
  const absl::Time start_;
  std::atomic<int64_t> last_receive_us_{0};  // Unix time

  std::once_flag archive_made_;
  absl::StatusOr<TokenizerArchive> archive_;

  std::mutex throughput_mutex_;
  absl::Time throughput_time_;
  uint64_t throughput_tokens_ = 0;
  double throughput_ = 0;
};

}  // namespace quire

#endif  // QUIRE_SERVER_VLLM_SERVICE_H_
