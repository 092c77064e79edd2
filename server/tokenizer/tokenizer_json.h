// Reading tokenizer.json, the format of the `tokenizers` library:
//   model           BPE over bytes or characters, with byte_fallback, fuse_unk, ignore_merges; Unigram
//   normalizer      NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, Replace, Prepend
//   pre_tokenizer   Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit
//   post_processor  ByteLevel, TemplateProcessing of one sequence
//   decoder         ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip
//   added_tokens    with all their flags
// and Sequences of these. Everything else in the file is an error that names it: it would change ids or text.
//
// Thread: functions of their arguments; any thread.

#ifndef QUIRE_SERVER_TOKENIZER_TOKENIZER_JSON_H_
#define QUIRE_SERVER_TOKENIZER_TOKENIZER_JSON_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/tokenizer/tokenizer_spec.h"

namespace quire {

// Errors: one line that begins with `name` and says what was found and what is allowed. Whatever is in `json`, it does
// not crash and takes memory in proportion to its size.
absl::StatusOr<TokenizerSpec> ParseTokenizerJson(absl::string_view json, absl::string_view name);

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_TOKENIZER_JSON_H_
