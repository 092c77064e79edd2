#include "scheduler/sequence.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace quire {

Sequence::Sequence(std::shared_ptr<const Request> request, uint32_t index, BlockPool& pool, int32_t block_size)
    : request_(std::move(request)),
      index_(index),
      block_size_(block_size),
      num_prompt_(static_cast<int32_t>(request_->prompt.size())),
      has_penalties_(request_->sampling.HasPenalties()),
      tokens_(request_->prompt),
      block_table_(pool) {
  const auto num_hashes = static_cast<int32_t>(request_->prompt_hashes.size());
  const bool is_hashed = num_hashes == num_prompt_ / block_size;
  Check(is_hashed || num_hashes == 0, "a prompt has as many hashes as full blocks, or none");
  feeds_prefix_cache_ = is_hashed && request_->use_prefix_cache;
  // Positions taken from the cache have no logits to score the prompt with.
  reads_prefix_cache_ =
      feeds_prefix_cache_ && request_->read_prefix_cache && !request_->num_prompt_logprobs.has_value();
}

const BlockHash& Sequence::HashOf(int32_t block) {
  const std::vector<BlockHash>& prompt_hashes = request_->prompt_hashes;
  const int32_t num_prompt_hashes = static_cast<int32_t>(prompt_hashes.size());
  if (block < num_prompt_hashes) return prompt_hashes[block];
  for (int32_t next = num_prompt_hashes + static_cast<int32_t>(output_hashes_.size()); next <= block; ++next) {
    const BlockHash& parent = next == 0 ? request_->root_hash : HashOf(next - 1);
    output_hashes_.push_back(NextHash(parent, tokens().subspan(size_t(next) * block_size_, block_size_)));
  }
  return output_hashes_[block - num_prompt_hashes];
}

int32_t Sequence::NumBlocksSoon() const {
  // The last token is drawn but never run.
  const int64_t len = std::min(static_cast<int64_t>(tokens_.size()) + block_size_, max_len() - 1);
  const int64_t blocks = (len + block_size_ - 1) / block_size_;
  return static_cast<int32_t>(blocks) - block_table_.size();
}

void Sequence::Append(uint32_t token) {
  tokens_.push_back(token);
  if (has_penalties_) seen_.AddOutput(token);
}

void Sequence::Reserve() {
  const int64_t max_blocks = (max_len() + block_size_ - 1) / block_size_;
  tokens_.reserve(static_cast<size_t>(max_len()));
  block_table_.Reserve(max_blocks);
  if (FeedsPrefixCache()) {
    output_hashes_.reserve(static_cast<size_t>(max_blocks) - request_->prompt_hashes.size());
  }
  if (has_penalties_) {
    seen_.Reserve(static_cast<size_t>(max_len()));
    seen_.AddPrompt(request_->prompt);
  }
}

}  // namespace quire
