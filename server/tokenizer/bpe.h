// Bpe: the tokens of one piece of text, by byte pair encoding (Sennrich et al. 2016, section 3.2; GPT-2).
//
// A piece begins as symbols: the tokens of its bytes, or of its characters. While some neighbours have a merge, the
// pair of the lowest rank is merged, the leftmost of equals. Few symbols are scanned for that pair; many keep their
// pairs in a heap, so that a megabyte of one letter takes n log n. A word that is one token in the end is found by one
// look-up.
//
// sentencepiece's BPE is the same: any two neighbours whose texts together are a piece have a merge, whose rank is that
// of the piece's score.
//
// Thread: immutable once made; any thread.

#ifndef QUIRE_SERVER_TOKENIZER_BPE_H_
#define QUIRE_SERVER_TOKENIZER_BPE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace quire {

inline constexpr uint32_t kNoToken = UINT32_MAX;

// What tokenizer.json says of the model.
struct BpeModel {
  BpeModel() { byte_ids.fill(kNoToken); }

  // `left` and `right` become `merged`. Of two entries of one pair the later counts.
  struct Merge {
    uint32_t left;
    uint32_t right;
    uint32_t merged;
    uint32_t rank;
  };

  bool by_characters = false;          // symbols are characters, else bytes
  std::array<uint32_t, 256> byte_ids;  // [byte] its token, or kNoToken; by_characters: for those that have no token
  absl::flat_hash_map<uint32_t, uint32_t> character_ids;  // code point: its token
  uint32_t unk_id = kNoToken;                             // of symbols without a token; kNoToken: they vanish
  bool fuse_unk = false;                                  // one for symbols in a row
  std::vector<Merge> merges;
  std::vector<std::pair<std::string, uint32_t>> words;  // tokens as they are in text
  bool ignore_merges = false;  // a piece that is a token is that token, whatever merges would make of it
};

class Bpe {
 public:
  explicit Bpe(BpeModel model);

  // Appends the tokens of `piece` to `ids`. REQUIRES: piece.size() < 2^31.
  void Encode(absl::string_view piece, std::vector<uint32_t>& ids) const;

 private:
  struct Merged {
    uint32_t rank;
    uint32_t id;
  };
  static constexpr Merged kNoMerge = {UINT32_MAX, UINT32_MAX};

  bool MayCutAtSpaces() const;
  Merged Find(uint32_t left, uint32_t right) const;
  void EncodeWord(absl::string_view word, std::vector<uint32_t>& ids) const;
  void EncodeByMerges(absl::string_view word, std::vector<uint32_t>& ids) const;
  // Writes the symbols of `word`, at most word.size(), and returns their number.
  size_t WriteSymbols(absl::string_view word, uint32_t* symbols) const;

  BpeModel model_;                                        // without merges and words
  absl::flat_hash_map<uint64_t, Merged> merges_;          // left << 32 | right
  absl::flat_hash_map<std::string, uint32_t> one_token_;  // words that are one token
  bool cuts_at_spaces_ = false;
};

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_BPE_H_
