// TokenizerSpec: what the files of a tokenizer say, checked. Readers of tokenizer.json, tokenizer.model and GGUF make
// it; Tokenizer is made of it.

#ifndef QUIRE_SERVER_TOKENIZER_TOKENIZER_SPEC_H_
#define QUIRE_SERVER_TOKENIZER_TOKENIZER_SPEC_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/tokenizer/added_tokens.h"
#include "server/tokenizer/bpe.h"
#include "server/tokenizer/normalizer.h"
#include "server/tokenizer/pre_tokenizer.h"
#include "server/tokenizer/unigram.h"

namespace quire {

// Above the largest vocabularies in use (262,144): an id may not make us allocate without bound.
inline constexpr uint32_t kMaxVocabSize = 1 << 20;

// Which blanks at the beginning of a decoded text are not shown: those that encoding has put there.
struct LeadingSpaces {
  enum class Of {
    kText,        // at most `max` of the text
    kFirstToken,  // of the first token, see first_tokens
    kEachToken,   // at most `max` of each token until one shows something
  };
  size_t max = 0;
  Of of = Of::kText;
};

// What becomes of decoded bytes that are no UTF-8.
enum class InvalidUtf8 {
  kMaximalSubparts,  // each becomes one U+FFFD (Unicode 15, section 3.9)
  kByteTokenRuns,    // in a run of byte tokens that is not valid as a whole, each byte does
  kSingleBytes,      // each byte of a run of byte tokens that is part of no character does
};

struct TokenizerSpec {
  std::vector<std::string> tokens;  // [id] the bytes that it stands for in decoded text; ids without a name have none
  std::vector<bool> is_byte;        // [id] it is one byte of a character that has no token; may be shorter than tokens
  std::vector<bool> keeps_spaces;   // [id] leading_spaces leave it alone; may be shorter than tokens
  std::variant<BpeModel, UnigramModel> model;  // ids below tokens.size()
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::vector<AddedToken> added_tokens;  // ids below tokens.size()
  // What is put before and behind a text.
  std::vector<uint32_t> prefix_ids;
  std::vector<uint32_t> suffix_ids;
  LeadingSpaces leading_spaces;
  // [id] with kFirstToken: the bytes of a token that begins a text, where they are not its others less leading blanks.
  absl::flat_hash_map<uint32_t, std::string> first_tokens;
  InvalidUtf8 invalid_utf8 = InvalidUtf8::kMaximalSubparts;
};

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_TOKENIZER_SPEC_H_
