#include "scheduler/sequence.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace quire {

Sequence::Sequence(std::shared_ptr<const Request> request, uint32_t index, const KvTableLayout& layout, BlockPool& pool)
    : tokens_(request->prompt),
      num_prompt_(static_cast<int32_t>(request->prompt.size())),
      max_tokens_(request->max_tokens),
      id_(request->id),
      index_(static_cast<uint8_t>(index)),
      num_outputs_(static_cast<int8_t>(request->num_outputs)),
      num_top_(static_cast<int8_t>(request->num_logprobs.value_or(0))),
      has_penalties_(request->sampling.HasPenalties()),
      blocks_(layout, pool),
      stop_ids_(request->stop_ids.begin(), request->stop_ids.end()),
      request_(std::move(request)),
      layout_(&layout),
      min_tokens_(request_->min_tokens),
      num_prompt_hashes_(static_cast<int32_t>(request_->prompt_hashes.size())) {
  for (const uint32_t id : stop_ids_) stop_filter_ |= FilterBit(id);
  const bool is_hashed = num_prompt_hashes_ == num_prompt_ / layout.block_size;
  Check(is_hashed || num_prompt_hashes_ == 0, "a prompt has as many hashes as full blocks, or none");
  feeds_prefix_cache_ = is_hashed && request_->use_prefix_cache;
  // Positions taken from the cache have no logits to score the prompt with.
  reads_prefix_cache_ =
      feeds_prefix_cache_ && request_->read_prefix_cache && !request_->num_prompt_logprobs.has_value();
}

const BlockHash& Sequence::HashOf(int32_t block) {
  const int32_t block_size = layout_->block_size;
  if (block < num_prompt_hashes_) return request_->prompt_hashes[block];
  for (int32_t next = num_prompt_hashes_ + static_cast<int32_t>(output_hashes_.size()); next <= block; ++next) {
    const BlockHash& parent = next == 0 ? request_->root_hash : HashOf(next - 1);
    output_hashes_.push_back(NextHash(parent, tokens().subspan(size_t(next) * block_size, block_size)));
  }
  return output_hashes_[block - num_prompt_hashes_];
}

void Sequence::Reserve() {
  const int64_t max_indices = layout_->NumIndices(max_len());
  tokens_.reserve(static_cast<size_t>(max_len()));
  blocks_.Reserve(max_indices);
  if (FeedsPrefixCache()) {
    output_hashes_.reserve(static_cast<size_t>(max_indices) - request_->prompt_hashes.size());
  }
  if (has_penalties_) {
    seen_.Reserve(static_cast<size_t>(max_len()));
    seen_.AddPrompt(request_->prompt);
  }
}

}  // namespace quire
