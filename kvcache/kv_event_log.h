// KvEventLog: which full blocks enter and leave the prefix index, on its way from the engine thread to whoever tells
// routers what this server has cached.
//
// A block goes by a number, the first 64 bits of its name, which stands for the whole prefix up to its end. What the
// engine thread notes is handed over once in a step; if nobody takes it for so long that the log is full, all of it is
// replaced by kCleared: what the reader believed is void, and from there on it learns anew. A reader may be told twice
// that a block is stored, or that one is removed that it was never told of.
//
// Thread: Stored, Removed and Flush from the engine thread; Take from one reader; Close from any. After it has grown
// to its size nothing here allocates.

#ifndef QUIRE_KVCACHE_KV_EVENT_LOG_H_
#define QUIRE_KVCACHE_KV_EVENT_LOG_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "kvcache/block_hash.h"

namespace quire {

using KvBlockNumber = int64_t;

enum class KvEventKind : uint8_t { kStored, kRemoved, kCleared };

struct KvEvent {
  KvEventKind kind;
  KvBlockNumber block = 0;              // none of kCleared
  std::optional<KvBlockNumber> parent;  // kStored: the block before it, unless it is the prefix's first
};

struct KvEventBatch {
  std::vector<KvEvent> events;   // in order
  std::vector<uint32_t> tokens;  // [block_size] of each kStored, in order

  void Clear() {
    events.clear();
    tokens.clear();
  }
};

class KvEventLog {
 public:
  // Holds `max_events` that nobody has taken.
  explicit KvEventLog(size_t max_events) : max_events_(max_events) {}

  KvEventLog(const KvEventLog&) = delete;
  KvEventLog& operator=(const KvEventLog&) = delete;

  // `tokens`: of this block alone. `parent`: nullptr for the first of its prefix.
  void Stored(const BlockHash& name, const BlockHash* parent, absl::Span<const uint32_t> tokens);
  void Removed(const BlockHash& name);
  // Hands over what was noted since.
  void Flush();

  // Waits for events and swaps them into `batch`. False after Close.
  bool Take(KvEventBatch& batch);
  void Close();

 private:
  const size_t max_events_;
  KvEventBatch noted_;  // the engine thread's

  std::mutex mutex_;
  std::condition_variable wake_;
  KvEventBatch ready_;   // guarded by mutex_
  bool closed_ = false;  // guarded by mutex_
};

}  // namespace quire

#endif  // QUIRE_KVCACHE_KV_EVENT_LOG_H_
