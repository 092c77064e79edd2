// Splitters: how a pre-tokenizer cuts text into the words within which BPE merges.
//
// A tokenizer.json names its splitter by a regular expression. The expressions are few, so each is written by hand
// here: linear in the text whatever stands in it, and nothing of the file is ever run.
//
// Thread: functions of their arguments; any thread.

#ifndef QUIRE_SERVER_TOKENIZER_SPLITTER_H_
#define QUIRE_SERVER_TOKENIZER_SPLITTER_H_

#include <cstddef>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace quire {

enum class Splitter {
  kGpt2,    // ByteLevel with use_regex (Radford et al. 2019)
  kLlama3,  // also cl100k of GPT-4: case-blind contractions, numbers by three digits, line ends apart
  kQwen2,   // the same with single digits
};

// The splitter that is written as this regular expression, if we have it.
std::optional<Splitter> SplitterOf(absl::string_view regex);

// The names of the splitters that there are, for errors.
std::string KnownSplitters();

// The end of the word of `text` that begins at `begin`; every byte is in a word. What stands before `begin` has no
// influence. REQUIRES: begin < text.size().
size_t EndOfWord(Splitter splitter, absl::string_view text, size_t begin);

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_SPLITTER_H_
