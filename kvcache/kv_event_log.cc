#include "kvcache/kv_event_log.h"

#include <cstring>
#include <utility>

namespace quire {
namespace {

KvBlockNumber NumberOf(const BlockHash& name) {
  KvBlockNumber number;
  std::memcpy(&number, name.data(), sizeof number);
  return number;
}

}  // namespace

void KvEventLog::Stored(const BlockHash& name, const BlockHash* parent, absl::Span<const uint32_t> tokens) {
  KvEvent& event = noted_.events.emplace_back(KvEvent{KvEventKind::kStored, NumberOf(name), std::nullopt});
  if (parent != nullptr) event.parent = NumberOf(*parent);
  noted_.tokens.insert(noted_.tokens.end(), tokens.begin(), tokens.end());
}

void KvEventLog::Removed(const BlockHash& name) {
  noted_.events.push_back({KvEventKind::kRemoved, NumberOf(name), std::nullopt});
}

void KvEventLog::Flush() {
  if (noted_.events.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    if (ready_.events.empty()) {
      std::swap(ready_, noted_);  // the capacities go round
    } else if (ready_.events.size() + noted_.events.size() <= max_events_) {
      ready_.events.insert(ready_.events.end(), noted_.events.begin(), noted_.events.end());
      ready_.tokens.insert(ready_.tokens.end(), noted_.tokens.begin(), noted_.tokens.end());
    } else {
      ready_.Clear();
      ready_.events.push_back({KvEventKind::kCleared, 0, std::nullopt});
    }
  }
  noted_.Clear();
  wake_.notify_one();
}

bool KvEventLog::Take(KvEventBatch& batch) {
  batch.Clear();
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [this] { return closed_ || !ready_.events.empty(); });
  if (closed_) return false;
  std::swap(batch, ready_);
  return true;
}

void KvEventLog::Close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  wake_.notify_all();
}

}  // namespace quire
