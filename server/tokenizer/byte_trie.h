// ByteTrie: finds which of many strings stand at a place of a text.
//
// The children of a node lie side by side, ascending by their byte, so that a step is a short scan and a trie of a
// quarter of a million tokens takes a few dozen megabytes at most.
//
// Thread: immutable once made; any thread.

#ifndef QUIRE_SERVER_TOKENIZER_BYTE_TRIE_H_
#define QUIRE_SERVER_TOKENIZER_BYTE_TRIE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace quire {

class ByteTrie {
 public:
  ByteTrie() : ByteTrie(std::vector<std::pair<absl::string_view, uint32_t>>()) {}
  // Strings and their values. Of equal strings the first counts; empty ones are left out.
  explicit ByteTrie(std::vector<std::pair<absl::string_view, uint32_t>> strings);

  struct Found {
    size_t end;  // in the text, in bytes
    uint32_t value;
  };

  // Calls visit(Found) for each string that stands at text[begin], the shortest first.
  template <typename Visit>
  void ForEachAt(absl::string_view text, size_t begin, Visit visit) const {
    if (begin >= text.size()) {
      return;
    }
    uint32_t node = first_[static_cast<uint8_t>(text[begin])];
    for (size_t at = begin + 1; node != kNone; ++at) {
      if (nodes_[node].value != kNone) {
        visit(Found{at, nodes_[node].value});
      }
      node = at < text.size() ? Child(node, static_cast<uint8_t>(text[at])) : kNone;
    }
  }

  // The longest of them.
  std::optional<Found> LongestAt(absl::string_view text, size_t begin) const {
    std::optional<Found> longest;
    ForEachAt(text, begin, [&](const Found& found) { longest = found; });
    return longest;
  }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Node {
    uint32_t value = kNone;
    uint32_t children = 0;  // index of the first in nodes_ and bytes_
    uint16_t num_children = 0;
  };

  uint32_t Child(uint32_t node, uint8_t byte) const {
    const uint32_t begin = nodes_[node].children, end = begin + nodes_[node].num_children;
    for (uint32_t child = begin; child < end; ++child) {
      if (bytes_[child] == byte) {
        return child;
      }
    }
    return kNone;
  }

  std::array<uint32_t, 256> first_;  // [byte] node
  std::vector<Node> nodes_;
  std::vector<uint8_t> bytes_;  // [node] the byte that leads to it
};

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_BYTE_TRIE_H_
