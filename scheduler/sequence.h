// Sequence: one output under way.
//
// One number says where it is: num_computed of tokens().size(). Prefill, a chunk of it, decode and the resume after a preemption are one act:
// run tokens [begin, begin + count). There is no phase flag.
//
// tokens() is prompt, then output. K and V of positions [0, num_computed) are in the blocks of block_table(). A chunk that reaches
// tokens().size() yields one new token.
//
// Owned by the Scheduler. Thread: the engine thread.

#ifndef QUIRE_SCHEDULER_SEQUENCE_H_
#define QUIRE_SCHEDULER_SEQUENCE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "kvcache/block_table.h"
#include "scheduler/request.h"

namespace quire {

class Sequence {
 public:
  Sequence(std::shared_ptr<const Request> request, uint32_t index, BlockPool& pool, int32_t block_size);

  const Request& request() const { return *request_; }
  uint32_t index() const { return index_; }  // which of the request's n outputs
  absl::Span<const uint32_t> tokens() const { return tokens_; }
  int32_t num_prompt() const { return static_cast<int32_t>(request_->prompt.size()); }
  int32_t num_output() const { return static_cast<int32_t>(tokens_.size()) - num_prompt(); }
  int32_t num_computed() const { return num_computed_; }
  const BlockTable& block_table() const { return block_table_; }

 private:
  friend class Scheduler;
  std::shared_ptr<const Request> request_;
  uint32_t index_;
  std::vector<uint32_t> tokens_;  // reserved for prompt + max_tokens at creation: no allocation on the step path
  int32_t num_computed_ = 0;
  BlockTable block_table_;
};

}  // namespace quire

#endif  // QUIRE_SCHEDULER_SEQUENCE_H_
