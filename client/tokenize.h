// `quire tokenize` and `quire detokenize`: text to ids and back, as the served model has them.

#ifndef QUIRE_CLIENT_TOKENIZE_H_
#define QUIRE_CLIENT_TOKENIZE_H_

#include <optional>
#include <string>

#include "client/channel.h"
#include "client/io.h"

namespace quire::client {

struct TokenizeOptions {
  ConnectionOptions connection;
  std::optional<std::string> prompt;  // absent: standard input, byte for byte
  bool add_special_tokens = true;
};

struct DetokenizeOptions {
  ConnectionOptions connection;
  std::optional<std::string> ids;  // "1,2,3"; absent: a JSON array on standard input
  bool skip_special_tokens = true;
};

// Prints a JSON array of ids on one line.
int RunTokenize(const TokenizeOptions& options, Io& io);

// Prints the text, with a newline if it does not end in one.
int RunDetokenize(const DetokenizeOptions& options, Io& io);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_TOKENIZE_H_
