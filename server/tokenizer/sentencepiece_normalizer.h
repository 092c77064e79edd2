// SentencePieceNormalizer: what sentencepiece does to a text before it looks for pieces (normalizer.cc, Normalize).
//
// It replaces characters by the longest entry of a map, trims and joins blanks, writes them as U+2581 and puts one in
// front. The map is a blob of the model's file: a double-array trie (Aoe 1989) in the layout of Darts-clone, followed
// by the replacements, each ending with NUL. Nothing in it is trusted: steps outside the array find nothing.
//
// Thread: immutable once made; any thread.

#ifndef QUIRE_SERVER_TOKENIZER_SENTENCEPIECE_NORMALIZER_H_
#define QUIRE_SERVER_TOKENIZER_SENTENCEPIECE_NORMALIZER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/tokenizer/byte_trie.h"

namespace quire {

struct SentencePieceNormalizerSpec {
  std::string precompiled_charsmap = {};  // empty: characters stay
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

class SentencePieceNormalizer {
 public:
  // `untouched` are texts that the map leaves alone (user-defined symbols).
  static absl::StatusOr<SentencePieceNormalizer> Create(const SentencePieceNormalizerSpec& spec,
                                                        const std::vector<std::string>& untouched);

  std::string Normalize(absl::string_view text) const;

 private:
  explicit SentencePieceNormalizer(const SentencePieceNormalizerSpec& spec) : spec_(spec) {}

  // What the text's first character or the longest entry of the map at `begin` becomes, and where it ends.
  std::pair<absl::string_view, size_t> NextAt(absl::string_view text, size_t begin) const;
  std::pair<absl::string_view, size_t> Replacement(absl::string_view text, size_t begin) const;

  SentencePieceNormalizerSpec spec_;
  ByteTrie untouched_;
  std::vector<uint32_t> trie_;  // units of the double array
  std::string replacements_;    // ends with NUL
};

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_SENTENCEPIECE_NORMALIZER_H_
