// AddedTokens: the tokens that are looked for in the text before it is cut into words.
//
// It finds what the `tokenizers` library finds, its corners included (added_vocabulary.rs, find_matches): the leftmost
// match and of those the longest; special tokens are matched and then left as text, so that they hide what overlaps
// them; a match whose neighbours forbid it (single_word) is passed over; lstrip and rstrip swallow the whitespace
// beside it.
//
// Thread: immutable once made; any thread.

#ifndef QUIRE_SERVER_TOKENIZER_ADDED_TOKENS_H_
#define QUIRE_SERVER_TOKENIZER_ADDED_TOKENS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace quire {

// One of tokenizer.json's added_tokens; the flags are its.
struct AddedToken {
  uint32_t id = 0;
  std::string content;
  bool special = false;      // left out of decoded text on request, never made from text
  bool single_word = false;  // only where no \w is beside it
  bool lstrip = false;       // takes the whitespace before it
  bool rstrip = false;       // takes the whitespace behind it
  bool normalized = false;   // looked for in the normalised text, after those that are not
};

class AddedTokens {
 public:
  // REQUIRES: the contents are different and not empty.
  explicit AddedTokens(std::vector<AddedToken> tokens);

  // A part of a text: a token, or text that is yet to be encoded. It is not empty.
  struct Part {
    absl::string_view text;
    std::optional<uint32_t> id;
  };

  // The parts of `text` in order. Linear in `text` times the longest content.
  std::vector<Part> Split(absl::string_view text) const;

  // Whether Split() can find anything at all.
  bool finds_something() const { return finds_something_; }

 private:
  static constexpr uint32_t kRoot = 0;

  struct Match {
    const AddedToken* token;
    size_t end;  // in the text, in bytes
  };

  // The longest content that stands at text[begin].
  std::optional<Match> LongestAt(absl::string_view text, size_t begin) const;

  std::vector<AddedToken> tokens_;
  bool finds_something_ = false;
  std::array<bool, 256> begins_ = {};                 // [byte] some content begins with it
  absl::flat_hash_map<uint64_t, uint32_t> children_;  // node << 8 | byte
  std::vector<std::optional<uint32_t>> token_at_;     // [node] index in tokens_ of the content that ends there
};

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_ADDED_TOKENS_H_
