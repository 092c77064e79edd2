// Tokenizers from the metadata of GGUF files (tokenizer.ggml.*), as llama.cpp writes it.
//
//   tokenizer.ggml.model   gpt2 (byte-level BPE, cut as tokenizer.ggml.pre says), llama (sentencepiece's BPE),
//                          t5 (sentencepiece's Unigram)
//
// GGUF says less than the files it is made from: no normaliser but t5's, no flags of added tokens.
//
// Thread: functions of their arguments; any thread.

#ifndef QUIRE_SERVER_TOKENIZER_GGUF_VOCABULARY_H_
#define QUIRE_SERVER_TOKENIZER_GGUF_VOCABULARY_H_

#include "absl/status/statusor.h"
#include "engine/gguf.h"
#include "server/tokenizer/tokenizer_spec.h"

namespace quire {

// Errors: one line that names the file, the key, what was found and what is allowed.
absl::StatusOr<TokenizerSpec> ReadGgufVocabulary(const GgufMetadata& metadata);

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_GGUF_VOCABULARY_H_
