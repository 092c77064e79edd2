#include "server/call_rate.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/errors.h"

namespace quire {

double CallRate::Refilled(const Bucket& bucket, absl::Time now) const {
  const double seconds = std::max(0.0, absl::ToDoubleSeconds(now - bucket.time));
  return std::min(calls_per_second_, bucket.calls + seconds * calls_per_second_);
}

absl::Status CallRate::Admit(const std::string& peer, absl::Time now) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (buckets_.size() >= sweep_at_) {
    std::erase_if(buckets_, [&](const auto& entry) { return Refilled(entry.second, now) >= calls_per_second_; });
    sweep_at_ = std::max<size_t>(1024, 2 * buckets_.size());
  }
  Bucket& bucket = buckets_.try_emplace(peer, Bucket{calls_per_second_, now}).first->second;
  bucket = {Refilled(bucket, now), std::max(now, bucket.time)};
  if (bucket.calls < 1) {
    return TryLater(absl::StatusCode::kResourceExhausted,
                    absl::StrCat("this connection opens more than ", calls_per_second_, " calls a second"),
                    absl::Seconds((1 - bucket.calls) / calls_per_second_));
  }
  bucket.calls -= 1;
  return absl::OkStatus();
}

}  // namespace quire
