// The files beside a tokenizer.model that add tokens to its pieces, as transformers reads them:
//
//   tokenizer_config.json     added_tokens_decoder: {"32000": {"content", "special", "lstrip", ...}}; if there, it
//   alone added_tokens.json         {"content": id} special_tokens_map.json   {"bos_token": "<s>" or {"content", ...},
//   "additional_special_tokens": [...]}: which of them
//                             are special, where added_tokens_decoder does not say

#ifndef QUIRE_SERVER_TOKENIZER_ADDED_TOKENS_FILES_H_
#define QUIRE_SERVER_TOKENIZER_ADDED_TOKENS_FILES_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/tokenizer/json_value.h"
#include "server/tokenizer/tokenizer_spec.h"

namespace quire {

// The object in a file of at most 16 MiB; an empty one where there is no such file.
absl::StatusOr<Json> ReadJsonFileIfThere(const std::string& path);

// Adds the tokens of the files in `model_dir` to `spec`, whose tokens are the model's pieces so far. `config` is
// tokenizer_config.json's object. INVALID_ARGUMENT names the file, the key, what was found and what is allowed.
absl::Status AddTokensOfFiles(const std::string& model_dir, const Json& config, TokenizerSpec& spec);

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_ADDED_TOKENS_FILES_H_
