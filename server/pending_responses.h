// PendingResponses: what waits to be written to one stream. While a write is outstanding the deltas of an output are
// put together, so that a client that reads slowly costs few messages, and memory for its own tokens only.
//
// Thread: one at a time (its stream's mutex).

#ifndef QUIRE_SERVER_PENDING_RESPONSES_H_
#define QUIRE_SERVER_PENDING_RESPONSES_H_

#include <cstdint>
#include <deque>

#include "quire/v1/generation.pb.h"

namespace quire {

class PendingResponses {
 public:
  // A delta of this many tokens with 20 log-probabilities each takes about 0.6 MB, far below the 4 MiB that clients
  // take by default.
  static constexpr uint32_t kMaxTokensPerDelta = 2048;

  struct Entry {
    v1::GenerateResponse response;
    uint32_t num_tokens = 0;  // that it delivers
  };

  // Puts a response at the end; a Delta joins the last one if that is a Delta of the same output with room.
  void Push(v1::GenerateResponse response, uint32_t num_tokens);

  bool empty() const { return entries_.empty(); }
  // REQUIRES: !empty().
  Entry Take();
  // Drops everything; returns the tokens that are lost.
  uint64_t Clear();

 private:
  std::deque<Entry> entries_;
};

}  // namespace quire

#endif  // QUIRE_SERVER_PENDING_RESPONSES_H_
