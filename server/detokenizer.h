// Detokenizer: turns the engine's events into responses on a thread of its own, so that the engine never waits for text
// and text never waits for a client.
//
// It owns the outputs of every request from Open to its end. Its verdict on stop strings wins: the output is over for
// the client at once, and the engine is told; tokens that the engine sampled meanwhile are discarded and counted. Every
// opened request ends exactly once (law 3), and is counted and logged here when it does.
//
// Thread: Open, Abandon and OnEvents from any; the rest of its state belongs to its thread.

#ifndef QUIRE_SERVER_DETOKENIZER_H_
#define QUIRE_SERVER_DETOKENIZER_H_

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "engine/engine.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/request_output.h"
#include "server/response_sink.h"
#include "server/span_exporter.h"

namespace quire {

class Detokenizer final : public EventSink {
 public:
  // All arguments must outlive it. `spans`: nullptr where none are exported.
  Detokenizer(const Tokenizer& tokenizer, Metrics& metrics, const RequestLog& log, SpanExporter* spans = nullptr);
  ~Detokenizer() override;  // Shutdown

  // Starts the thread. `stop` tells the engine that an output of a request is over; `failed` hears of the engine's
  // failure once all events before it are answered. Both are called on the detokenizer's thread.
  void Start(std::function<void(RequestId, uint32_t index)> stop, std::function<void(const absl::Status&)> failed);

  // Gets ready for a request's events. To be called before Engine::Submit.
  void Open(std::shared_ptr<const Request> request, OutputSpec spec, std::shared_ptr<ResponseSink> sink);

  // The engine has refused an opened request: forgets it without a word.
  void Abandon(RequestId id);

  // From the engine.
  void OnEvents(std::vector<TokenEvent>& events) override;
  void OnEngineFailure(const absl::Status& status) override;

  // Answers what is queued and joins the thread. Requests that are still open then end UNAVAILABLE. Idempotent.
  void Shutdown();

 private:
  struct Live {
    RequestOutput output;
    std::shared_ptr<ResponseSink> sink;
    uint32_t num_outputs;
  };
  // What other threads have brought since the last turn.
  struct Inbox {
    std::vector<std::pair<RequestId, Live>> opened;
    std::vector<RequestId> abandoned;
    std::vector<TokenEvent> events;
    std::optional<absl::Status> failure;
    bool stop = false;

    bool empty() const { return opened.empty() && abandoned.empty() && events.empty() && !failure && !stop; }
  };

  void Loop();
  // Handle, but an exception ends only the request of the event.
  void HandleContained(const TokenEvent& event);
  void Handle(const TokenEvent& event);
  // Tells the client and the books that a request is over.
  void End(RequestId id, Live& live);

  const Tokenizer& tokenizer_;
  Metrics& metrics_;
  const RequestLog& log_;
  SpanExporter* const spans_;
  std::function<void(RequestId, uint32_t)> stop_;
  std::function<void(const absl::Status&)> failed_;

  std::mutex mutex_;
  std::condition_variable wake_;
  Inbox inbox_;  // guarded by mutex_

  // Of the thread.
  std::unordered_map<RequestId, Live> live_;
  std::vector<RequestOutput::Response> responses_;  // of one event; reused

  std::thread thread_;
};

}  // namespace quire

#endif  // QUIRE_SERVER_DETOKENIZER_H_
