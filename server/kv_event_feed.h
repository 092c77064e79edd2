// KvEventFeed: tells subscribers which blocks of prompts this server has cached (SubscribeKvEvents of the VllmEngine
// dialect), so that routers send a request where its prefix is.
//
// A thread of its own takes the engine's events and keeps a mirror of what is cached: number, parent and tokens of each
// block. A subscription begins with kCleared and all of the mirror, then gets what changes. Its batches are numbered
// one after the other from the cursor that the subscriber gave: who comes again after a lost connection, or to a server
// that was restarted, sees no gap, and forgets what he believed. One who takes so little that too much would have to be
// kept for him is told so, and his stream ends.
//
// Thread: any, but Shutdown.

#ifndef QUIRE_SERVER_KV_EVENT_FEED_H_
#define QUIRE_SERVER_KV_EVENT_FEED_H_

#include <grpcpp/support/server_callback.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "kvcache/kv_event_log.h"
#include "smg/common.pb.h"

namespace quire {

class KvEventFeed {
 public:
  struct Limits {
    size_t max_subscribers = 16;
    size_t max_unsent_blocks = 65536;  // of one subscriber, beside the mirror that it gets first
  };

  using Reactor = grpc::ServerWriteReactor<smg::grpc::common::KvEventBatch>;

  // `log` outlives it.
  KvEventFeed(KvEventLog& log, int32_t block_size, Limits limits);
  KvEventFeed(KvEventLog& log, int32_t block_size) : KvEventFeed(log, block_size, Limits()) {}
  ~KvEventFeed();  // Shutdown

  // A stream whose first batch has the number `cursor` + 1. It deletes itself.
  Reactor* Subscribe(uint64_t cursor);

  // Ends all subscriptions UNAVAILABLE and joins the thread. Idempotent. The server must be shut down before it is
  // destroyed.
  void Shutdown();

 private:
  class Subscriber;
  class Messages;
  struct Block {
    std::optional<KvBlockNumber> parent;
    std::vector<uint32_t> tokens;
  };

  void Loop();
  // Takes the events into the mirror. Returns what has changed.
  std::vector<smg::grpc::common::KvEventBatch> Apply(const KvEventBatch& batch);
  // kCleared and the mirror, parents before children.
  std::vector<smg::grpc::common::KvEventBatch> Snapshot();
  void Remove(Subscriber* subscriber);

  KvEventLog& log_;
  const int32_t block_size_;
  const Limits limits_;

  std::mutex mutex_;  // taken before a subscriber's
  std::unordered_map<KvBlockNumber, Block> mirror_;
  std::unordered_set<Subscriber*> subscribers_;
  uint64_t num_events_ = 0;
  std::optional<absl::Status> closed_;

  std::thread thread_;
};

}  // namespace quire

#endif  // QUIRE_SERVER_KV_EVENT_FEED_H_
