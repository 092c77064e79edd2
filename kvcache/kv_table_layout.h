// KvTableLayout: which blocks a sequence holds in each group of layers, as a function of how far it has come.
//
// Index i of every table stands for the positions [i * block_size, (i + 1) * block_size). A group without a window
// keeps them all. In one with a window, the row at position p sees t in (p - window, p]: a block is passed, and goes
// back to the pool, as soon as its last position is at most p - window for every row p still to come.
//
// A value; knows neither layers nor bytes.

#ifndef QUIRE_KVCACHE_KV_TABLE_LAYOUT_H_
#define QUIRE_KVCACHE_KV_TABLE_LAYOUT_H_

#include <algorithm>
#include <cstdint>
#include <vector>

namespace quire {

struct KvTableLayout {
  int32_t block_size = 16;             // tokens
  std::vector<int32_t> windows = {0};  // [groups]: tokens that a row sees, itself included; 0: all

  int32_t num_groups() const { return static_cast<int32_t>(windows.size()); }
  bool has_windows() const {
    return std::any_of(windows.begin(), windows.end(), [](int32_t window) { return window > 0; });
  }

  // Indices of a table that `num_tokens` tokens reach.
  int64_t NumIndices(int64_t num_tokens) const { return (num_tokens + block_size - 1) / block_size; }

  // How many indices, from the first on, the rows at positions `next`, next + 1, ... do not see in a group of this
  // window.
  int32_t NumPassed(int32_t window, int64_t next) const {
    return window == 0 ? 0 : static_cast<int32_t>(std::max<int64_t>(0, next - window + 1) / block_size);
  }

  // The most blocks that a sequence holds in a group of this window on its way to `num_tokens` tokens, if it runs one
  // token in each step: `window` consecutive positions lie in (window - 2) / block_size + 2 blocks at most.
  int64_t MaxBlocksInGroup(int32_t window, int64_t num_tokens) const {
    const int64_t indices = NumIndices(num_tokens);
    if (window == 0) return indices;
    return std::min(indices, window == 1 ? 1 : int64_t{window - 2} / block_size + 2);
  }
  // The same over all groups.
  int64_t MaxBlocks(int64_t num_tokens) const {
    int64_t blocks = 0;
    for (const int32_t window : windows) blocks += MaxBlocksInGroup(window, num_tokens);
    return blocks;
  }
};

}  // namespace quire

#endif  // QUIRE_KVCACHE_KV_TABLE_LAYOUT_H_
