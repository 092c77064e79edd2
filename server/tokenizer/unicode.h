// UTF-8, and the properties of code points that tokenizers ask for.
//
// The properties are those of the `tokenizers` library (make_unicode_tables.py asks it), so their version of Unicode is
// the library's.
//
// Thread: functions of their arguments; any thread.

#ifndef QUIRE_SERVER_TOKENIZER_UNICODE_H_
#define QUIRE_SERVER_TOKENIZER_UNICODE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace quire {

// General categories (Unicode 15, section 4.5); kCn is what no table lists, surrogates among them.
enum class GeneralCategory : uint8_t {
  Lu,
  Ll,
  Lt,
  Lm,
  Lo,
  Mn,
  Mc,
  Me,
  Nd,
  Nl,
  No,
  Pc,
  Pd,
  Ps,
  Pe,
  Pi,
  Pf,
  Po,
  Sm,
  Sc,
  Sk,
  So,
  Zs,
  Zl,
  Zp,
  Cc,
  Cf,
  Co,
  Cn
};

// Other properties, as bits.
inline constexpr uint8_t kSpace = 1;         // \s everywhere
inline constexpr uint8_t kWord = 2;          // \w, as the flag single_word of added tokens means it
inline constexpr uint8_t kRegexWord = 4;     // \w, as regular expressions mean it
inline constexpr uint8_t kDigits = 8;        // what the pre-tokenizer Digits takes for one
inline constexpr uint8_t kPunctuation = 16;  // what the pre-tokenizer Punctuation takes for it
inline constexpr uint8_t kAccent = 32;       // what the normaliser StripAccents strips

// Code points `first` to `last`, both included.
struct CodePointRange {
  uint32_t first;
  uint32_t last;
  GeneralCategory category;
  uint8_t properties;
};

// All code points that have a category besides Cn or a property, ascending.
absl::Span<const CodePointRange> CodePointRanges();

uint8_t PropertiesOf(uint32_t code_point);

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

// One character of a text: its properties and its length in bytes. A byte that is no UTF-8 is one without any.
struct TextCharacter {
  uint8_t properties;
  uint8_t num_bytes;
};

// REQUIRES: at < text.size().
TextCharacter CharacterAt(absl::string_view text, size_t at);

// The end of the run of characters that have one of `properties` from `at` on.
size_t EndOfRun(absl::string_view text, size_t at, uint8_t properties);

// Appends the code point as UTF-8. REQUIRES: it is one of Unicode.
void AppendCodePoint(uint32_t code_point, std::string& text);

// The beginning of the character that ends at `end`. REQUIRES: end > 0.
size_t BeginOfLast(absl::string_view text, size_t end);

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_UNICODE_H_
