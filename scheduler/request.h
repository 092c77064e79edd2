// Request: what a client asked, in tokens. Immutable once submitted; shared by its n sequences.

#ifndef QUIRE_SCHEDULER_REQUEST_H_
#define QUIRE_SCHEDULER_REQUEST_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "kernels/sampling/sampling.h"
#include "kvcache/block_hash.h"

namespace quire {

// Names a request inside one process; never reused. Not the client's request_id, which is text and lives in `server`.
using RequestId = uint64_t;

struct Request {
  RequestId id = 0;
  std::vector<uint32_t> prompt;  // >= 1 token, each < vocab_size
  // HashBlocks of the prompt; empty although the prompt has a full block: as with use_prefix_cache = false.
  std::vector<BlockHash> prompt_hashes;
  // RootHash of its salt: where the chain begins if the output fills the first full block.
  BlockHash root_hash{};
  bool use_prefix_cache = true;   // false: its blocks are neither looked up nor published
  bool read_prefix_cache = true;  // false: published, but not looked up (prompt log-probabilities need every position)
  SamplingParams sampling;
  std::vector<TokenBias> logit_bias;  // each id once
  std::vector<uint32_t> allowed_ids;  // each once; empty: all
  uint32_t num_outputs = 1;           // 1 .. 16; output i is drawn with seed + i (mod 2^64)
  uint32_t max_tokens = 1;            // >= 1; prompt + max_tokens <= max_model_len
  uint32_t min_tokens = 0;            // below it, stop_ids are banned
  std::vector<uint32_t> stop_ids;  // eos ids (unless ignored) and the client's stop ids: the token that ends the output
  std::optional<uint32_t> num_logprobs;         // of generated tokens: top-k to report beside the chosen one
  std::optional<uint32_t> num_prompt_logprobs;  // of prompt tokens, from position 1 on
  absl::Time arrival;                           // when the server took it in
  // Whoever has not started by `queue_deadline` expires, and whoever is not over by `deadline`; at `time_limit` the
  // outputs end with what there is.
  absl::Time deadline = absl::InfiniteFuture();
  absl::Time queue_deadline = absl::InfiniteFuture();
  absl::Time time_limit = absl::InfiniteFuture();
  int32_t priority = 0;  // with SchedulingPolicy::kPriority: lower runs first
  std::string tenant;    // on whose account it runs; empty: those who give no name
};

}  // namespace quire

#endif  // QUIRE_SCHEDULER_REQUEST_H_
