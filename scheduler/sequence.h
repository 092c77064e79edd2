// Sequence: one output under way. Until the prompt of a request of n outputs is complete, the sequence of output 0
// stands for all of them; then n tokens are drawn from its last row, and each output goes on as a sequence of its own.
//
// One number says where it is: num_computed of tokens().size(). Prefill, a chunk of it, decode and the resume after a
// preemption are one act: run tokens [begin, begin + count). There is no phase flag.
//
// tokens() is prompt, then output. K and V of positions [0, num_computed) are in the blocks of block_table(), in a
// group with a sliding window those that a row still to come sees; or they will be when the batches in flight have run.
// A chunk that reaches len() yields one new token: len() counts those of tokens() and the one that a batch in flight
// draws and the host has not seen.
//
// Owned by the Scheduler, which alone changes it. Thread: the engine thread.

#ifndef QUIRE_SCHEDULER_SEQUENCE_H_
#define QUIRE_SCHEDULER_SEQUENCE_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"
#include "kvcache/block_hash.h"
#include "kvcache/block_tables.h"
#include "kvcache/kv_table_layout.h"
#include "scheduler/fair_share.h"
#include "scheduler/policy.h"
#include "scheduler/request.h"
#include "scheduler/seen_tokens.h"
#include "scheduler/token_event.h"

namespace quire {

class Sequence {
 public:
  // `layout` and `pool` outlive it. REQUIRES: request->prompt_hashes is empty or has one hash for each full block of
  // the prompt (Check).
  Sequence(std::shared_ptr<const Request> request, uint32_t index, const KvTableLayout& layout, BlockPool& pool);

  const Request& request() const { return *request_; }
  RequestId id() const { return id_; }       // of the request
  uint32_t index() const { return index_; }  // which of the request's n outputs
  absl::Span<const uint32_t> tokens() const { return tokens_; }
  int32_t num_prompt() const { return num_prompt_; }
  int32_t num_output() const { return static_cast<int32_t>(tokens_.size()) - num_prompt_; }
  int32_t num_computed() const { return num_computed_; }
  // Drawn by batches in flight, not yet seen by the host: at most one when it is scheduled, at position
  // tokens().size().
  int32_t num_in_flight() const { return num_in_flight_; }
  int32_t len() const { return static_cast<int32_t>(tokens_.size()) + num_in_flight_; }
  // Of all tokens(), if the request has penalties; else empty.
  absl::Span<const TokenCount> counts() const { return seen_.counts(); }
  // Of a group of layers, numbered as in KvCacheSpec.
  const BlockTable& block_table(int32_t group = 0) const { return blocks_[group]; }
  int32_t num_groups() const { return blocks_.num_groups(); }

  const Rank& rank() const { return rank_; }
  AccountId account() const { return account_; }  // whom its work is charged to (kFair)
  // Tokens that are expected to run before it has its next one; fixed while it waits.
  int32_t expected_tokens() const { return expected_tokens_; }

  // Outputs that it stands for: tokens to draw when it has run what it has.
  int32_t num_outputs() const { return num_outputs_; }

  // Tokens that have yet to run; at least one while the sequence is alive, but for one that AwaitsToken.
  int32_t num_pending() const { return len() - num_computed_; }

  // Nothing of it can run before the host has seen the token in flight: it is the last that it may have; or outputs
  // begin with it, which are sequences of their own from then on. (A stop id does not hold it up: what runs after one
  // is discarded.)
  bool AwaitsToken() const {
    return num_in_flight_ > 0 && (num_output() + num_in_flight_ == int64_t{max_tokens_} || num_outputs_ > 1);
  }

  // The longest that it can get, prompt and output.
  int64_t max_len() const { return int64_t{num_prompt()} + max_tokens_; }

  // The token drawn for `position` may not be a stop id: with it the output would be shorter than min_tokens.
  bool BansStopIdsAt(int32_t position) const { return position - num_prompt_ + 1 < int64_t{min_tokens_}; }

  // Log-probabilities to report beside that of a generated token.
  int32_t num_top() const { return num_top_; }

  // Whether it looks for its prefix in the cache, and whether it lends its own full blocks.
  bool ReadsPrefixCache() const { return reads_prefix_cache_; }
  bool FeedsPrefixCache() const { return feeds_prefix_cache_; }

  // The name of full block `block`, a hash of tokens()[0, (block + 1) * block_size). REQUIRES: FeedsPrefixCache() and
  // the block is full.
  const BlockHash& HashOf(int32_t block);

  // Has the CPU fetch what a decode step touches, while another sequence is worked on.
  void Prefetch() const {
    __builtin_prefetch(&tokens_);
    __builtin_prefetch(&blocks_);
  }

  // Blocks missing, over all groups, for its tokens and the next block_size ones, but never for more than it can come
  // to need.
  int64_t NumBlocksSoon() const {
    // The last token is drawn but never run.
    const int64_t soon = std::min(int64_t{len()} + layout_->block_size, max_len() - 1);
    // Outputs that it stands for share the prompt, but not what follows.
    return blocks_.NumMissing(soon) + int64_t{num_outputs_ - 1} * layout_->num_groups();
  }

 private:
  friend class Scheduler;

  // Its blocks have a slot for each position below `end`.
  bool HasSlots(int32_t end) const { return end <= blocks_.num_slots(); }

  // Its next position has a slot, in a block that cannot be somebody else's too: it can run without more blocks.
  bool HasOwnSlot() const { return num_computed_ < blocks_.num_slots() && !may_share_next_; }

  // The block that its next position lies in is somebody else's too: REQUIRES HasSlots(num_computed() + 1).
  int32_t NumSharedBlocks() const {
    return may_share_next_ ? blocks_.NumShared(num_computed_ / layout_->block_size) : 0;
  }

  // Takes the token that was drawn.
  void Append(uint32_t token) {
    tokens_.push_back(token);
    if (has_penalties_) seen_.AddOutput(token);
  }

  // Why it is complete now that `token` is its last, or kNone.
  FinishReason FinishWith(uint32_t token) const {
    const auto length = static_cast<uint32_t>(num_output());
    if ((stop_filter_ & FilterBit(token)) != 0 && IsStopId(token) && length >= min_tokens_) return FinishReason::kStop;
    return length == max_tokens_ ? FinishReason::kLength : FinishReason::kNone;
  }
  bool IsStopId(uint32_t token) const {
    return std::find(stop_ids_.begin(), stop_ids_.end(), token) != stop_ids_.end();
  }
  static uint64_t FilterBit(uint32_t token) { return uint64_t{1} << (token % 64); }

  // Room for the longest output: from here on appending tokens or blocks allocates nothing.
  void Reserve();

  // A decode step touches of every running sequence these, two cache lines, and nothing after them. What they repeat of
  // the request spares the step a look at it.
  std::vector<uint32_t> tokens_;
  int32_t num_computed_ = 0;
  // Where the chunks that were committed reached: positions below it that run again are recomputed, and their prompt
  // log-probabilities are out.
  int32_t max_computed_ = 0;
  int32_t num_prompt_;
  uint32_t max_tokens_;
  RequestId id_;
  uint64_t stop_filter_ = 0;  // the FilterBits of all stop ids: most tokens are none of them
  AccountId account_ = 0;
  int32_t last_chunk_ = 0;    // the index of its chunk in the last batch that names it
  int8_t num_launched_ = 0;   // batches in flight that name it
  int8_t num_in_flight_ = 0;  // of these, how many draw a token
  uint8_t index_;
  int8_t num_outputs_;
  int8_t num_top_;
  bool has_penalties_;
  // The block that its next position lies in is one that the outputs of its request began to share.
  bool may_share_next_ = false;
  bool leaving_ = false;  // runs no more; its blocks go back when no batch in flight names it
  BlockTables blocks_;    // of it num_slots()

  absl::InlinedVector<uint32_t, 4> stop_ids_;
  std::shared_ptr<const Request> request_;
  bool feeds_prefix_cache_;
  bool reads_prefix_cache_;
  bool running_ = false;  // admitted and not preempted since: only then, or while it is leaving, it holds blocks
  bool started_ = false;  // it was admitted once
  bool ended_ = false;    // over, but kept for the batches in flight; it is leaving
  bool failed_ = false;   // its blocks' contents are suspect
  bool queued_ = false;   // it waits for its turn
  bool paused_ = false;   // its client does not read: it is not runnable
  const KvTableLayout* layout_;
  uint32_t min_tokens_;
  // Blocks, from the first on, whose names the prefix cache knows or need not know.
  int32_t num_published_ = 0;
  int32_t num_prompt_hashes_;
  int32_t expected_tokens_ = 0;
  Rank rank_;
  // Of the full blocks after those of request().prompt_hashes, as far as asked for.
  std::vector<BlockHash> output_hashes_;
  SeenTokens seen_;  // if has_penalties_
};

}  // namespace quire

#endif  // QUIRE_SCHEDULER_SEQUENCE_H_
