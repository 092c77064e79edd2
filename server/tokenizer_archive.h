// The tokenizer's files as one zip archive, for gateways that tokenize and render chats themselves (GetTokenizer).

#ifndef QUIRE_SERVER_TOKENIZER_ARCHIVE_H_
#define QUIRE_SERVER_TOKENIZER_ARCHIVE_H_

#include <string>

#include "absl/status/statusor.h"

namespace quire {

struct TokenizerArchive {
  std::string bytes;   // zip
  std::string sha256;  // of `bytes`, in hex
};

// Of what `directory` has of the files that a tokenizer and its chat template consist of, the same bytes for the same
// files. NOT_FOUND when it has no tokenizer; RESOURCE_EXHAUSTED above 256 MiB. Messages name no path.
absl::StatusOr<TokenizerArchive> MakeTokenizerArchive(const std::string& directory);

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_ARCHIVE_H_
