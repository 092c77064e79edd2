// Daemon: all of `quired serve`, put together: built from the engine outwards, taken down in the reverse order.

#ifndef QUIRE_SERVER_DAEMON_H_
#define QUIRE_SERVER_DAEMON_H_

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "quire/v1/model.pb.h"
#include "server/admin_server.h"
#include "server/authenticator.h"
#include "server/call_rate.h"
#include "server/detokenizer.h"
#include "server/flags.h"
#include "server/generation_service.h"
#include "server/heartbeat.h"
#include "server/kv_event_feed.h"
#include "server/live_requests.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/model_service.h"
#include "server/rpc_server.h"
#include "server/shutdown_signal.h"
#include "server/span_exporter.h"
#include "server/tokenizer/tokenizer.h"
#include "server/tokenizer_pool.h"
#include "server/vllm_service.h"

namespace quire {

class Daemon {
 public:
  // Loads the model and serves; `signal` must outlive it. Errors are the operator's: one line each.
  static absl::StatusOr<std::unique_ptr<Daemon>> Start(const Options& options, ShutdownSignal& signal);
  ~Daemon();

  // "quired ready grpc=... admin=... model=..."
  std::string ReadyLine() const;

  // Serves until a signal, drains, and returns the exit code: 0, or 2 when the engine failed.
  int Run();

 private:
  Daemon(const Options& options, ShutdownSignal& signal, LoadedModel model, std::unique_ptr<Tokenizer> tokenizer,
         std::unique_ptr<AuthTokens> tokens, RequestLimits limits);

  // `credentials`: none for plaintext.
  absl::Status Listen(std::shared_ptr<grpc::ServerCredentials> credentials);
  // Stops taking requests and waits for the accepted ones. Returns early on a second signal or a failure.
  void Drain();
  // Ends what is left and joins every thread, from the pool inwards.
  void Stop();
  // Waits until no call is live; false on a signal, a failure or the deadline.
  bool WaitUntilEmpty(absl::Time deadline);
  void SetReady(bool ready);

  const Options options_;
  ShutdownSignal& signal_;
  const v1::GetModelResponse model_;
  const std::unique_ptr<Tokenizer> tokenizer_;
  const Authenticator authenticator_;
  Metrics metrics_;
  RequestLog log_;
  const std::unique_ptr<SpanExporter> spans_;  // of --otlp-endpoint; may be none
  Detokenizer detokenizer_;
  const std::unique_ptr<KvEventLog> kv_event_log_;  // of --kv-events; may be none, and then there is no feed
  Engine engine_;
  LiveRequests live_;
  TokenizerPool pool_;
  CallRate rate_;
  GenerationService generation_service_;
  ModelService model_service_;
  const std::unique_ptr<KvEventFeed> kv_event_feed_;
  VllmService vllm_service_;
  Heartbeat heartbeat_;  // of the admin server's thread
  std::atomic<bool> ready_{false};
  std::atomic<bool> failed_{false};
  std::atomic<bool> empty_{false};  // closed, and no call is live
  bool stopped_ = false;
  std::unique_ptr<RpcServer> rpc_server_;
  std::unique_ptr<RpcServer> health_server_;  // of --health-listen; may be none
  std::unique_ptr<AdminServer> admin_server_;
};

}  // namespace quire

#endif  // QUIRE_SERVER_DAEMON_H_
