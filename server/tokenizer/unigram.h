// Unigram: the tokens of one piece of text by the likeliest path through its pieces (Kudo 2018, "Subword
// regularization", section 3.2), by Viterbi's algorithm. The corners are those of the `tokenizers` library and of
// sentencepiece (unigram_model.cc, EncodeOptimized), which round differently.
//
// Thread: immutable once made; any thread.

#ifndef QUIRE_SERVER_TOKENIZER_UNIGRAM_H_
#define QUIRE_SERVER_TOKENIZER_UNIGRAM_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/tokenizer/bpe.h"
#include "server/tokenizer/byte_trie.h"

namespace quire {

struct UnigramModel {
  UnigramModel() { byte_ids.fill(kNoToken); }

  struct Piece {
    std::string text;
    uint32_t id;
    double score;  // logarithm of its probability
  };
  std::vector<Piece> pieces;
  double unk_score = 0;                // of a character that no piece is
  uint32_t unk_id = kNoToken;          // its token; kNoToken: it vanishes
  bool fuse_unk = true;                // one for such characters in a row
  std::array<uint32_t, 256> byte_ids;  // [byte] what stands for such a character's bytes instead, or kNoToken
  bool single_precision = false;       // scores of paths are floats, as in sentencepiece
};

class Unigram {
 public:
  explicit Unigram(UnigramModel model);

  // Appends the tokens of `piece` to `ids`. Linear in `piece` times the longest token.
  void Encode(absl::string_view piece, std::vector<uint32_t>& ids) const;

 private:
  void AppendUnknown(absl::string_view text, std::vector<uint32_t>& ids) const;

  UnigramModel model_;
  ByteTrie trie_;  // of indices in model_.pieces
};

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_UNIGRAM_H_
