// PendingResponses: what waits to be written to one stream. While a write is outstanding the deltas of each output are
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

  // Puts a response at the end; a Delta joins the last one of its output if since then only Deltas of other outputs
  // have come, and there is room.
  void Push(v1::GenerateResponse response, uint32_t num_tokens);

  bool empty() const { return entries_.empty(); }
  // Tokens that wait.
  uint64_t num_tokens() const { return num_tokens_; }
  // REQUIRES: !empty().
  Entry Take();
  // Drops everything; returns the tokens that are lost.
  uint64_t Clear();

 private:
  // The entry that a Delta of this output may join; nullptr if there is none.
  Entry* OpenDelta(uint32_t index);

  std::deque<Entry> entries_;
  uint64_t num_tokens_ = 0;  // the sum of the entries'
};

}  // namespace quire

#endif  // QUIRE_SERVER_PENDING_RESPONSES_H_
