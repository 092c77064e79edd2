// Bpe: the tokens of one word, by byte pair encoding over bytes (Sennrich et al. 2016, section 3.2; GPT-2).
//
// A word begins as its bytes. While some neighbours have a merge, the pair of the lowest rank is merged, the leftmost
// of equals. A short word is scanned for that pair; a long one keeps its pairs in a heap, so that a megabyte of one
// letter takes n log n. A word that is one token in the end is found by one look-up.
//
// Thread: immutable once made; any thread.

#ifndef QUIRE_SERVER_TOKENIZER_BPE_H_
#define QUIRE_SERVER_TOKENIZER_BPE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace quire {

// What tokenizer.json says of the model.
struct BpeModel {
  // `left` and `right` become `merged`; the place in `merges` is the rank. Of two entries of one pair the later counts.
  struct Merge {
    uint32_t left;
    uint32_t right;
    uint32_t merged;
  };
  std::array<uint32_t, 256> byte_ids = {};  // [byte] the token of a single byte
  std::vector<Merge> merges;
  std::vector<uint32_t> word_ids;  // tokens that are the bytes of some word (not those of other languages' spelling)
  bool ignore_merges = false;      // a word that is a token is that token, whatever merges would make of it
};

class Bpe {
 public:
  // tokens[id] are the bytes of a token; they must outlive this. REQUIRES: all ids in `model` are below tokens.size().
  Bpe(const BpeModel& model, absl::Span<const std::string> tokens);

  // Appends the tokens of `word` to `ids`. REQUIRES: word.size() < 2^31.
  void Encode(absl::string_view word, std::vector<uint32_t>& ids) const;

 private:
  struct Merged {
    uint32_t rank;
    uint32_t id;
  };
  static constexpr Merged kNoMerge = {UINT32_MAX, UINT32_MAX};

  Merged Find(uint32_t left, uint32_t right) const;
  void EncodeShort(absl::string_view word, std::vector<uint32_t>& ids) const;
  void EncodeLong(absl::string_view word, std::vector<uint32_t>& ids) const;

  std::array<uint32_t, 256> byte_ids_;
  absl::flat_hash_map<uint64_t, Merged> merges_;                // left << 32 | right
  absl::flat_hash_map<absl::string_view, uint32_t> one_token_;  // words that are one token
};

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_BPE_H_
