// `quired tokenize`: the tokenizer alone, from stdin to stdout.

#ifndef QUIRE_SERVER_TOKENIZER_TOKENIZE_COMMAND_H_
#define QUIRE_SERVER_TOKENIZER_TOKENIZE_COMMAND_H_

#include <iosfwd>

#include "server/tokenizer/tokenizer.h"

namespace quire {

// Turns each line of `in`, a JSON string, into one line of `out` with a JSON array of its ids (`no_special`: without
// BOS and the like); the text of special tokens stays text. With `decode` the reverse: each line an array of ids, out a
// JSON string; special tokens are kept, invalid UTF-8 becomes U+FFFD. The first line that is neither ends it with one
// line on `err` that names the line's number. Returns the exit code: 0, or 1 after an error.
int RunTokenizeCommand(const Tokenizer& tokenizer, bool no_special, bool decode, std::istream& in, std::ostream& out,
                       std::ostream& err);

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_TOKENIZE_COMMAND_H_
