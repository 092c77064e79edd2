// SpanExporter: sends a span for each request of a sampled trace to an OpenTelemetry collector, by OTLP over HTTP in
// JSON.
//
// Who ends a request puts its record in a bounded queue and goes on; a thread of its own takes batches from it, makes
// JSON of them and posts them. Where the collector is slow or away the batch at hand is tried again for a while, the
// queue fills, and what does not fit is dropped and counted: memory is bounded and no request waits. Batches and
// retries are those of OpenTelemetry's own batch processor.
//
// Thread: any, but Shutdown.

#ifndef QUIRE_SERVER_SPAN_EXPORTER_H_
#define QUIRE_SERVER_SPAN_EXPORTER_H_

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "server/metrics.h"
#include "server/request_record.h"
#include "server/trace_context.h"

namespace quire {

struct SpanExporterOptions {
  std::string url;            // where to post, as ParseHttpUrl gives it
  double sampling_ratio = 1;  // of the traces that begin here
  std::string model_name;
  size_t max_queued = 2048;                       // spans
  size_t max_batch = 512;                         // spans in one request
  absl::Duration max_delay = absl::Seconds(5);    // of a span, until its batch is sent
  absl::Duration timeout = absl::Seconds(10);     // of one request
  int max_attempts = 5;                           // of one batch
  absl::Duration first_pause = absl::Seconds(1);  // between two attempts; each is twice as long as the one before
  absl::Duration farewell = absl::Seconds(1);     // what Shutdown may take
};

class SpanExporter {
 public:
  // Starts the thread. `metrics` outlives it.
  SpanExporter(SpanExporterOptions options, Metrics& metrics);
  ~SpanExporter();  // Shutdown

  // The place of a call whose caller gave `parent`: its trace goes on, recorded if the caller records it; without one a
  // trace begins, which is recorded by chance.
  TraceContext Begin(std::optional<TraceContext> parent) const;

  // The call is over. Does nothing if its trace is not recorded.
  void Ended(const RequestRecord& record);

  // Sends what is queued, if that can be done quickly, and joins the thread. Idempotent.
  void Shutdown();

 private:
  class Poster;
  enum class Outcome { kTaken, kTryAgain, kRefused };

  void Loop();
  // Waits for spans, and a while for more of them. False when there are none and there will be none.
  bool Take(std::vector<RequestRecord>& batch);
  void Send(const std::vector<RequestRecord>& batch);
  // Waits before the next attempt; false when there is no time for one.
  bool Pause(absl::Duration pause);
  // Logs the first failure and the first success after one.
  void TellOfChange(bool works, const std::string& why);

  const SpanExporterOptions options_;
  Metrics& metrics_;
  std::unique_ptr<Poster> poster_;  // of the thread

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<RequestRecord> queue_;              // guarded by mutex_
  absl::Time give_up_ = absl::InfiniteFuture();  // guarded by mutex_; set once, by Shutdown
  bool works_ = true;                            // of the thread

  std::thread thread_;
};

}  // namespace quire

#endif  // QUIRE_SERVER_SPAN_EXPORTER_H_
