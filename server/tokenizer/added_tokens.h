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

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/tokenizer/byte_trie.h"

namespace quire {

// One of tokenizer.json's added_tokens; the flags are its.
struct AddedToken {
  uint32_t id = 0;
  std::string content;       // what is looked for; as the normaliser makes it, if `normalized`
  bool special = false;      // left out of decoded text on request, made from trusted text only
  bool single_word = false;  // only where no \w is beside it
  bool lstrip = false;       // takes the whitespace before it
  bool rstrip = false;       // takes the whitespace behind it
  bool normalized = false;   // looked for in the normalised text, after those that are not
};

class AddedTokens {
 public:
  // Of equal contents the first counts. REQUIRES: none is empty.
  explicit AddedTokens(std::vector<AddedToken> tokens);

  // A part of a text: a token, or text that is yet to be encoded. It is not empty.
  struct Part {
    absl::string_view text;
    std::optional<uint32_t> id;
  };

  // The parts of `text` in order. Special tokens stay text unless it is `trusted`. Linear in `text` times the longest
  // content.
  std::vector<Part> Split(absl::string_view text, bool trusted) const;

  // Whether Split() can find anything at all.
  bool FindsSomething(bool trusted) const { return finds_plain_ || (trusted && finds_special_); }

 private:
  std::vector<AddedToken> tokens_;
  bool finds_plain_ = false;
  bool finds_special_ = false;
  ByteTrie trie_;  // of indices in tokens_
};

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_ADDED_TOKENS_H_
