#include "server/kv_event_feed.h"

#include <deque>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/contained.h"
#include "server/errors.h"
#include "server/rpc_message.h"

namespace quire {
namespace {

namespace smg = ::smg::grpc::common;

// Of one message: with 16 tokens each about 100 KiB, far below the 4 MiB that clients take.
constexpr size_t kMaxBlocksPerMessage = 1024;

size_t NumBlocks(const smg::KvEventBatch& batch) {
  size_t count = 0;
  for (const smg::KvCacheEvent& event : batch.events()) {
    count += static_cast<size_t>(event.stored().blocks_size() + event.removed().block_hashes_size());
  }
  return count;
}

}  // namespace

// Events on their way into messages of a bounded size; runs of blocks and of removals become one event each.
class KvEventFeed::Messages {
 public:
  Messages(int32_t block_size, uint64_t& num_events) : block_size_(block_size), num_events_(num_events) {}

  void Stored(KvBlockNumber number, const Block& block) {
    const bool follows = block.parent && *block.parent == last_stored_;
    if (smg::KvCacheEvent& event = Event(smg::KvCacheEvent::kStored, follows); !event.has_stored() && block.parent) {
      event.mutable_stored()->set_parent_block_hash(*block.parent);
    }
    smg::KvBlock& stored = *batches_.back().mutable_events()->rbegin()->mutable_stored()->add_blocks();
    stored.set_block_hash(number);
    stored.set_block_size(block_size_);
    stored.mutable_token_ids()->Add(block.tokens.begin(), block.tokens.end());
    last_stored_ = number;
  }
  void Removed(KvBlockNumber number) {
    Event(smg::KvCacheEvent::kRemoved, /*follows=*/true).mutable_removed()->add_block_hashes(number);
  }
  void Cleared() { Event(smg::KvCacheEvent::kCleared, /*follows=*/false).mutable_cleared(); }

  std::vector<smg::KvEventBatch> Take() { return std::move(batches_); }

 private:
  // The last event, if it is of this kind and the next thing goes with it, or else a new one.
  smg::KvCacheEvent& Event(smg::KvCacheEvent::DataCase kind, bool follows) {
    if (batches_.empty() || num_blocks_ == kMaxBlocksPerMessage) {
      smg::KvEventBatch& batch = batches_.emplace_back();
      batch.set_timestamp(static_cast<double>(absl::ToUnixMicros(absl::Now())) * 1e-6);
      batch.set_dp_rank(0);
      num_blocks_ = 0;
    }
    ++num_blocks_;
    auto& events = *batches_.back().mutable_events();
    if (!follows || events.empty() || events.rbegin()->data_case() != kind) events.Add()->set_event_id(++num_events_);
    return *events.rbegin();
  }

  const int32_t block_size_;
  uint64_t& num_events_;
  std::vector<smg::KvEventBatch> batches_;
  size_t num_blocks_ = 0;  // in the last one
  std::optional<KvBlockNumber> last_stored_;
};

// One stream. The feed tells it of changes; gRPC takes them one by one.
class KvEventFeed::Subscriber final : public Reactor {
 public:
  // `feed`: nullptr for a stream that only ends. `first`: what comes first, whatever its size.
  Subscriber(KvEventFeed* feed, uint64_t cursor, std::vector<smg::KvEventBatch> first = {})
      : feed_(feed), last_number_(cursor) {
    for (smg::KvEventBatch& batch : first) unsent_.push_back({std::move(batch), /*num_counted=*/0});
  }

  void Begin() { Advance(); }

  void Push(const smg::KvEventBatch& batch) {
    {
      const std::lock_guard lock(mutex_);
      if (end_) return;
      const size_t num_blocks = NumBlocks(batch);
      num_unsent_blocks_ += num_blocks;
      if (num_unsent_blocks_ > feed_->limits_.max_unsent_blocks) {
        unsent_.clear();
        end_ = TryLater(absl::StatusCode::kResourceExhausted, "the subscriber reads too slowly: subscribe again",
                        absl::Seconds(1));
      } else {
        unsent_.push_back({batch, num_blocks});
      }
    }
    Advance();
  }

  void End(const absl::Status& status) {
    {
      const std::lock_guard lock(mutex_);
      if (!end_) {
        unsent_.clear();
        end_ = status;
      }
    }
    Advance();
  }

  void OnWriteDone(bool ok) override {
    {
      const std::lock_guard lock(mutex_);
      writing_ = false;
    }
    ok ? Advance() : End(absl::CancelledError("the subscriber has gone"));
  }
  void OnCancel() override { End(absl::CancelledError("the subscriber has gone")); }
  void OnDone() override {
    if (feed_ != nullptr) feed_->Remove(this);
    delete this;
  }

 private:
  struct Unsent {
    smg::KvEventBatch batch;
    size_t num_counted;  // of its blocks, in num_unsent_blocks_
  };

  // Begins the next operation, if none is outstanding and there is something to do.
  void Advance() {
    std::optional<absl::Status> end;
    {
      const std::lock_guard lock(mutex_);
      if (writing_ || finished_) return;
      if (!unsent_.empty()) {
        message_ = std::move(unsent_.front().batch);
        message_.set_sequence_number(++last_number_);
        num_unsent_blocks_ -= unsent_.front().num_counted;
        unsent_.pop_front();
        writing_ = true;
      } else if (end_) {
        end = end_;
        finished_ = true;
      } else {
        return;
      }
    }
    // Of all threads only this one may begin an operation now: the flags above keep the others out.
    end ? Finish(ToGrpcStatus(*end)) : StartWrite(&message_);
  }

  KvEventFeed* const feed_;
  std::mutex mutex_;
  uint64_t last_number_;
  std::deque<Unsent> unsent_;
  size_t num_unsent_blocks_ = 0;
  std::optional<absl::Status> end_;
  bool writing_ = false;
  bool finished_ = false;
  smg::KvEventBatch message_;  // alive until its write is done; touched only by the thread that begins an operation
};

KvEventFeed::KvEventFeed(KvEventLog& log, int32_t block_size, Limits limits)
    : log_(log), block_size_(block_size), limits_(limits), thread_([this] { Loop(); }) {}

KvEventFeed::~KvEventFeed() { Shutdown(); }

KvEventFeed::Reactor* KvEventFeed::Subscribe(uint64_t cursor) {
  const std::lock_guard lock(mutex_);
  absl::Status refused = closed_.value_or(absl::OkStatus());
  if (refused.ok() && subscribers_.size() >= limits_.max_subscribers) {
    refused = TryLater(absl::StatusCode::kResourceExhausted, "too many subscribers", absl::Seconds(10));
  }
  if (!refused.ok()) {
    auto* const stream = new Subscriber(nullptr, cursor);
    stream->End(refused);
    return stream;
  }
  auto subscriber = std::make_unique<Subscriber>(this, cursor, Snapshot());
  subscribers_.insert(subscriber.get());
  subscriber->Begin();
  return subscriber.release();
}

void KvEventFeed::Remove(Subscriber* subscriber) {
  const std::lock_guard lock(mutex_);
  subscribers_.erase(subscriber);
}

void KvEventFeed::Shutdown() {
  if (!thread_.joinable()) return;
  log_.Close();
  thread_.join();
  const std::lock_guard lock(mutex_);
  closed_ = TryLater(absl::StatusCode::kUnavailable, "the server is going down", absl::Seconds(1));
  for (Subscriber* subscriber : subscribers_) subscriber->End(*closed_);
}

void KvEventFeed::Loop() {
  KvEventBatch batch;
  while (log_.Take(batch)) {
    const std::lock_guard lock(mutex_);
    const absl::Status status = Contained([&] {
      for (const smg::KvEventBatch& changes : Apply(batch)) {
        for (Subscriber* subscriber : subscribers_) subscriber->Push(changes);
      }
      return absl::OkStatus();
    });
    if (status.ok()) continue;
    // Out of memory: what is known is in doubt, and who asks again learns anew.
    mirror_.clear();
    for (Subscriber* subscriber : subscribers_) subscriber->End(status);
  }
}

std::vector<smg::KvEventBatch> KvEventFeed::Apply(const KvEventBatch& batch) {
  Messages changes(block_size_, num_events_);
  const uint32_t* tokens = batch.tokens.data();
  for (const KvEvent& event : batch.events) {
    switch (event.kind) {
      case KvEventKind::kStored: {
        const auto [it, is_new] = mirror_.try_emplace(event.block);
        if (is_new) {
          it->second = {event.parent, {tokens, tokens + block_size_}};
          changes.Stored(event.block, it->second);
        }
        tokens += block_size_;
        break;
      }
      case KvEventKind::kRemoved:
        if (mirror_.erase(event.block) > 0) changes.Removed(event.block);
        break;
      case KvEventKind::kCleared:
        mirror_.clear();
        changes.Cleared();
        break;
    }
  }
  return changes.Take();
}

std::vector<smg::KvEventBatch> KvEventFeed::Snapshot() {
  Messages all(block_size_, num_events_);
  all.Cleared();
  std::unordered_set<KvBlockNumber> told;
  std::vector<decltype(mirror_)::const_iterator> chain;  // a block and those before it, the first last
  for (auto block = mirror_.cbegin(); block != mirror_.cend(); ++block) {
    for (auto it = block; it != mirror_.cend() && told.insert(it->first).second;) {
      chain.push_back(it);
      it = it->second.parent ? mirror_.find(*it->second.parent) : mirror_.cend();
    }
    for (; !chain.empty(); chain.pop_back()) all.Stored(chain.back()->first, chain.back()->second);
  }
  return all.Take();
}

}  // namespace quire
