// SeenTokens: which tokens a sequence has, and how often its output has them: what the penalties of sampling.h ask.
//
// A function of the tokens alone, so a preemption leaves it as it is. The counts lie one after another, each token
// once; a hash table of open addressing with linear probing, at most half full, says where.
//
// Owned by a Sequence. Thread: the engine thread.

#ifndef QUIRE_SCHEDULER_SEEN_TOKENS_H_
#define QUIRE_SCHEDULER_SEEN_TOKENS_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/sampling/sampling.h"

namespace quire {

class SeenTokens {
 public:
  // Room for `num_tokens` tokens: until then adding allocates nothing.
  void Reserve(size_t num_tokens) {
    counts_.reserve(num_tokens);
    slots_.assign(std::bit_ceil(2 * num_tokens), kEmpty);
  }

  // REQUIRES: no more tokens than reserved.
  void AddPrompt(absl::Span<const uint32_t> ids) {
    for (const uint32_t id : ids) Find(id);
  }
  void AddOutput(uint32_t id) { ++Find(id).in_output; }

  absl::Span<const TokenCount> counts() const { return counts_; }

 private:
  static constexpr uint32_t kEmpty = UINT32_MAX;

  // The count of `id`, which is new if need be.
  TokenCount& Find(uint32_t id) {
    const size_t mask = slots_.size() - 1;
    size_t slot = (id * size_t{0x9e3779b97f4a7c15}) >> 32 & mask;  // Fibonacci hashing (Knuth, TAOCP vol. 3, 6.4)
    for (; slots_[slot] != kEmpty; slot = (slot + 1) & mask) {
      if (counts_[slots_[slot]].id == id) return counts_[slots_[slot]];
    }
    slots_[slot] = static_cast<uint32_t>(counts_.size());
    return counts_.emplace_back(TokenCount{.id = id, .in_output = 0});
  }

  std::vector<TokenCount> counts_;
  std::vector<uint32_t> slots_;  // a power of two: indices in counts_, or kEmpty
};

}  // namespace quire

#endif  // QUIRE_SCHEDULER_SEEN_TOKENS_H_
