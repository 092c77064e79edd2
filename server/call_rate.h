// CallRate: how fast one connection may open calls. A client that opens and resets streams as fast as it can (rapid
// reset, CVE-2023-44487) never has many open at once, but each costs work.
//
// A token bucket for each connection, by its peer's address: it holds one second's worth. A bucket that is full again
// is no different from none, so such buckets are dropped now and then, and the number of them is bounded by the rate.
//
// Thread: any.

#ifndef QUIRE_SERVER_CALL_RATE_H_
#define QUIRE_SERVER_CALL_RATE_H_

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace quire {

class CallRate {
 public:
  // REQUIRES: calls_per_second >= 1.
  explicit CallRate(int32_t calls_per_second) : calls_per_second_(calls_per_second) {}

  // Counts one call of this peer; RESOURCE_EXHAUSTED with a retry delay if it has opened too many.
  absl::Status Admit(const std::string& peer, absl::Time now);

  // Peers that are remembered.
  size_t size() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return buckets_.size();
  }

 private:
  struct Bucket {
    double calls;  // that may be opened, at `time`
    absl::Time time;
  };

  // Calls that the bucket has now.
  double Refilled(const Bucket& bucket, absl::Time now) const;

  const double calls_per_second_;
  mutable std::mutex mutex_;
  std::unordered_map<std::string, Bucket> buckets_;
  size_t sweep_at_ = 1024;  // buckets: then the full ones are dropped
};

}  // namespace quire

#endif  // QUIRE_SERVER_CALL_RATE_H_
