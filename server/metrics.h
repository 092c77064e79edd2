// Metrics: what /metrics says (INTERFACES section 5). Requests and tokens are counted here where it happens; the
// engine's own counts come from its snapshot. Reading waits for nobody and never touches the engine thread.
//
// Thread: any.

#ifndef QUIRE_SERVER_METRICS_H_
#define QUIRE_SERVER_METRICS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "absl/time/time.h"
#include "engine/engine.h"
#include "server/prometheus_text.h"
#include "server/request_record.h"

namespace quire {

class Metrics {
 public:
  // What does not change while the server runs.
  struct Info {
    std::string model_name;
    int32_t block_size = 0;
    int32_t num_blocks = 0;
    int32_t max_model_len = 0;
    std::string kv_cache_dtype;
    bool enable_prefix_caching = true;
  };
  explicit Metrics(const Info& info);

  // Each received request is followed by exactly one Rejected or Ended.
  void Received() { received_.fetch_add(1, std::memory_order_relaxed); }
  void Rejected() { Count(RequestEnding::kRejected); }
  void Ended(const RequestRecord& record);

  void FirstToken(absl::Duration since_arrival) { time_to_first_token_.Observe(absl::ToDoubleSeconds(since_arrival)); }
  void NextToken(absl::Duration since_last) { inter_token_latency_.Observe(absl::ToDoubleSeconds(since_last)); }
  // Ids handed to gRPC, and ids that were sampled for nobody.
  void Delivered(uint64_t tokens) { delivered_.fetch_add(tokens, std::memory_order_relaxed); }
  void Discarded(uint64_t tokens) { discarded_.fetch_add(tokens, std::memory_order_relaxed); }
  // The engine told of a request that was over already.
  void LateEvent() { late_events_.fetch_add(1, std::memory_order_relaxed); }
  // A client did not read for so long that its stream was cut.
  void StreamStalled() { stalls_.fetch_add(1, std::memory_order_relaxed); }

  // Spans that a collector has taken, and spans that none has.
  void SpansExported(uint64_t spans) { spans_exported_.fetch_add(spans, std::memory_order_relaxed); }
  void SpansDropped(uint64_t spans) { spans_dropped_.fetch_add(spans, std::memory_order_relaxed); }

  // The page.
  std::string Text(const EngineSnapshot& snapshot) const;

 private:
  void Count(RequestEnding ending) { endings_[static_cast<size_t>(ending)].fetch_add(1, std::memory_order_relaxed); }
  void WriteEngine(const EngineSnapshot& snapshot, PrometheusText& out) const;
  void WriteLatencies(PrometheusText& out) const;
  void WriteOwn(const EngineSnapshot& snapshot, PrometheusText& out) const;
  void WriteTenants(PrometheusText& out) const;
  // Requests received and not over.
  uint64_t UnderWay() const;

  // What the requests of one tenant that are over have taken.
  struct Share {
    uint64_t requests = 0, prompt_tokens = 0, completion_tokens = 0;
  };

  const Info info_;
  std::atomic<uint64_t> received_{0};
  std::array<std::atomic<uint64_t>, 5> endings_{};
  std::atomic<uint64_t> stopped_{0}, reached_length_{0};  // of the finished ones, by reason
  std::atomic<uint64_t> delivered_{0}, discarded_{0}, late_events_{0}, stalls_{0};
  std::atomic<uint64_t> spans_exported_{0}, spans_dropped_{0};
  Histogram time_to_first_token_, inter_token_latency_;
  Histogram e2e_latency_, queue_time_, inference_time_, prefill_time_, decode_time_;
  Histogram prompt_tokens_, generation_tokens_, max_tokens_, num_outputs_;
  mutable std::mutex shares_mutex_;      // held for a few additions, once for each request
  std::map<std::string, Share> shares_;  // by tenant; see kMaxTenants
};

}  // namespace quire

#endif  // QUIRE_SERVER_METRICS_H_
