#include "server/live_requests.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "server/errors.h"

namespace quire {

LiveRequests::LiveRequests(absl::Duration write_deadline)
    : write_deadline_(write_deadline), thread_([this] { CutStalled(); }) {}

LiveRequests::~LiveRequests() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

absl::Status LiveRequests::Add(const std::string& id, const std::string& tenant,
                               std::shared_ptr<GenerateStream> stream) {
  bool first;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) {
      return TryLater(absl::StatusCode::kUnavailable, "the server is draining: it takes no new requests",
                      absl::Seconds(1));
    }
    GenerateStream* const key = stream.get();
    Name name(id, tenant);
    if (!names_.emplace(name, key).second) {
      return absl::AlreadyExistsError("request_id: a request of this name is under way");
    }
    first = streams_.empty();
    streams_.emplace(key, Entry{std::move(stream), std::move(name)});
  }
  if (first) wake_.notify_one();
  return absl::OkStatus();
}

void LiveRequests::ReleaseName(GenerateStream* stream) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = streams_.find(stream);
  if (found == streams_.end() || !found->second.has_name) return;
  found->second.has_name = false;
  names_.erase(found->second.name);
}

void LiveRequests::Remove(GenerateStream* stream) {
  std::function<void()> empty;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = streams_.find(stream);
    if (found == streams_.end()) return;
    if (found->second.has_name) names_.erase(found->second.name);
    streams_.erase(found);
    if (closed_ && streams_.empty()) empty = std::exchange(empty_, nullptr);
  }
  if (empty) empty();
}

void LiveRequests::Cancel(const std::string& id) {
  std::vector<std::shared_ptr<GenerateStream>> streams;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto at = names_.lower_bound(Name(id, "")); at != names_.end() && at->first.first == id; ++at) {
      streams.push_back(streams_.at(at->second).stream);
    }
  }
  for (const auto& stream : streams) stream->Cancel(Ending::kCancelled);
}

void LiveRequests::Close(std::function<void()> empty) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    if (!streams_.empty()) empty_ = std::exchange(empty, nullptr);
  }
  if (empty) empty();
}

size_t LiveRequests::size() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return streams_.size();
}

void LiveRequests::CutStalled() {
  std::vector<std::shared_ptr<GenerateStream>> live;
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stop_) {
    wake_.wait(lock, [this] { return stop_ || !streams_.empty(); });
    wake_.wait_for(lock, absl::ToChronoNanoseconds(std::min(absl::Seconds(1), write_deadline_ / 4)),
                   [this] { return stop_; });
    for (const auto& [key, entry] : streams_) live.push_back(entry.stream);
    lock.unlock();
    for (const auto& stream : live) stream->CutIfStalled(absl::Now(), write_deadline_);
    live.clear();  // outside of the mutex: it may be the last reference
    lock.lock();
  }
}

}  // namespace quire
