#include "server/tokenizer/byte_trie.h"

#include <algorithm>

namespace quire {

ByteTrie::ByteTrie(std::vector<std::pair<absl::string_view, uint32_t>> strings) {
  std::stable_sort(strings.begin(), strings.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  first_.fill(kNone);
  // Strings [begin, end) begin with the same `depth` bytes, which lead to `node`; the root has none.
  struct Group {
    uint32_t node;
    size_t begin;
    size_t end;
    size_t depth;
  };
  std::vector<Group> groups = {{kNone, 0, strings.size(), 0}};
  for (size_t i = 0; i < groups.size(); ++i) {  // breadth first: a node's children are made together
    const Group group = groups[i];
    size_t at = group.begin;
    while (at < group.end && strings[at].first.size() == group.depth) {
      if (group.node != kNone && nodes_[group.node].value == kNone) {
        nodes_[group.node].value = strings[at].second;
      }
      ++at;
    }
    const uint32_t children = static_cast<uint32_t>(nodes_.size());
    while (at < group.end) {
      const uint8_t byte = static_cast<uint8_t>(strings[at].first[group.depth]);
      const size_t begin = at;
      while (at < group.end && static_cast<uint8_t>(strings[at].first[group.depth]) == byte) {
        ++at;
      }
      const uint32_t child = static_cast<uint32_t>(nodes_.size());
      nodes_.emplace_back();
      bytes_.push_back(byte);
      if (group.node == kNone) {
        first_[byte] = child;
      }
      groups.push_back({child, begin, at, group.depth + 1});
    }
    if (group.node != kNone) {
      nodes_[group.node].children = children;
      nodes_[group.node].num_children = static_cast<uint16_t>(nodes_.size() - children);
    }
  }
}

}  // namespace quire
