// UTF-8 and the few properties of code points that splitting text into words needs.
//
// The properties are those of the `tokenizers` library (make_unicode_tables.py asks it), so their version of Unicode is
// the library's.
//
// Thread: functions of their arguments; any thread.

#ifndef QUIRE_SERVER_TOKENIZER_UNICODE_H_
#define QUIRE_SERVER_TOKENIZER_UNICODE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace quire {

// Classes of code points, as bits. A code point has exactly one of the first four.
inline constexpr uint8_t kLetter = 1;  // \p{L} of the library's regular expressions
inline constexpr uint8_t kNumber = 2;  // \p{N}
inline constexpr uint8_t kSpace = 4;   // \s
inline constexpr uint8_t kOther = 8;   // [^\s\p{L}\p{N}]
inline constexpr uint8_t kWord = 16;   // \w, as the flag single_word of added tokens means it

// Code points `first` to `last`, both included, and their classes, kOther left out.
struct CodePointRange {
  uint32_t first;
  uint32_t last;
  uint8_t classes;
};

// All code points that have a class besides kOther, ascending.
absl::Span<const CodePointRange> CodePointRanges();

uint8_t ClassesOf(uint32_t code_point);

// What stands at the beginning of some bytes (Unicode 15, section 3.9, table 3-7).
struct Utf8Sequence {
  enum Kind {
    kCharacter,
    kIllFormed,   // a maximal subpart of an ill-formed sequence: Unicode's advice is one U+FFFD for it
    kUnfinished,  // all bytes there are, and more could make it a character
  };
  Kind kind;
  size_t num_bytes;     // at least 1
  uint32_t code_point;  // U+FFFD unless `kind` is kCharacter
};

// REQUIRES: `bytes` is not empty.
Utf8Sequence NextUtf8(absl::string_view bytes);

// Appends `bytes` to `text` as valid UTF-8, each maximal subpart of an ill-formed sequence as one U+FFFD, and returns
// the bytes taken: all with `at_end`, else all but an unfinished character at their end, which is three bytes at most.
size_t AppendUtf8(absl::string_view bytes, bool at_end, std::string& text);

// One character of a text: its classes and its length in bytes. A byte that is no UTF-8 is one of kOther.
struct TextCharacter {
  uint8_t classes;
  uint8_t num_bytes;
};

TextCharacter CharacterAtSlow(absl::string_view text, size_t at);

namespace internal {

// [c] ClassesOf(c).
inline constexpr std::array<uint8_t, 128> kAsciiClasses = [] {
  std::array<uint8_t, 128> classes = {};
  for (int c = 0; c < 128; ++c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool number = c >= '0' && c <= '9';
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    classes[c] = (letter   ? kLetter
                  : number ? kNumber
                  : space  ? kSpace
                           : kOther) |
                 (letter || number || c == '_' ? kWord : 0);
  }
  return classes;
}();

}  // namespace internal

// REQUIRES: at < text.size().
inline TextCharacter CharacterAt(absl::string_view text, size_t at) {
  const uint8_t byte = static_cast<uint8_t>(text[at]);
  return byte < 128 ? TextCharacter{internal::kAsciiClasses[byte], 1} : CharacterAtSlow(text, at);
}

// The end of the run of characters that have one of `classes` from `at` on.
inline size_t EndOfRun(absl::string_view text, size_t at, uint8_t classes) {
  while (at < text.size()) {
    const TextCharacter character = CharacterAt(text, at);
    if ((character.classes & classes) == 0) {
      break;
    }
    at += character.num_bytes;
  }
  return at;
}

// The beginning of the character that ends at `end`. REQUIRES: end > 0.
size_t BeginOfLast(absl::string_view text, size_t end);

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_UNICODE_H_
