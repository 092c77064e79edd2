// Heartbeat: tells an engine that hangs in a step from one that is idle or slow, by looking at its snapshot from time
// to time.
//
// Thread: one (the admin server's).

#ifndef QUIRE_SERVER_HEARTBEAT_H_
#define QUIRE_SERVER_HEARTBEAT_H_

#include <cstdint>

#include "absl/time/time.h"
#include "engine/engine.h"

namespace quire {

class Heartbeat {
 public:
  // `limit`: the longest that a step may take.
  explicit Heartbeat(absl::Duration limit) : limit_(limit) {}

  // Whether the engine moves: it has nothing to do, or its loop has turned since it was looked at `limit` ago. The time
  // of the last step is not asked: after an idle hour it is an hour old.
  bool Beats(absl::Time now, const EngineSnapshot& snapshot) {
    const bool first_look = since_ == absl::InfiniteFuture();
    if (first_look || !snapshot.has_work || snapshot.turns != turns_) {
      turns_ = snapshot.turns;
      since_ = now;
    }
    return now - since_ < limit_;
  }

 private:
  const absl::Duration limit_;
  uint64_t turns_ = 0;                         // at the last look that saw a movement
  absl::Time since_ = absl::InfiniteFuture();  // when that was; InfiniteFuture before the first look
};

}  // namespace quire

#endif  // QUIRE_SERVER_HEARTBEAT_H_
