// TokenizerSpec: what a tokenizer.json says, checked.
//
// Read is byte-level BPE (the model of GPT-2, Llama 3, Qwen2):
//   model           BPE with a token for each byte, merges as "a b" or ["a", "b"], ignore_merges
//   pre_tokenizer   ByteLevel, or a Sequence of Splits by a known expression (splitter.h) that ends with ByteLevel
//   post_processor  none, ByteLevel, TemplateProcessing of one sequence, or a Sequence of these
//   decoder         ByteLevel
//   added_tokens    with all their flags
// Everything else in the file is an error that names it: it would change ids or text.
//
// Thread: functions of their arguments; any thread.

#ifndef QUIRE_SERVER_TOKENIZER_TOKENIZER_JSON_H_
#define QUIRE_SERVER_TOKENIZER_TOKENIZER_JSON_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/tokenizer/added_tokens.h"
#include "server/tokenizer/bpe.h"
#include "server/tokenizer/splitter.h"

namespace quire {

struct TokenizerSpec {
  std::vector<std::string> tokens;  // [id] the bytes that it stands for in decoded text; ids without a name have none
  BpeModel bpe;                     // ids below tokens.size()
  std::vector<Splitter> splitters;  // each cuts what the one before it left
  std::vector<AddedToken> added_tokens;
  // What the post-processor puts before and behind a text.
  std::vector<uint32_t> prefix_ids;
  std::vector<uint32_t> suffix_ids;
};

// Errors: one line that begins with `name` and says what was found and what is allowed. Whatever is in `json`, it does
// not crash and takes memory in proportion to its size.
absl::StatusOr<TokenizerSpec> ParseTokenizerJson(absl::string_view json, absl::string_view name);

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_TOKENIZER_JSON_H_
