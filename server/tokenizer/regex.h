// Regex: a regular expression of the kind that pre-tokenizers are written with, as a deterministic automaton.
//
// It finds what a backtracking engine finds (Oniguruma's, which the `tokenizers` library uses): of the alternatives the
// first that matches, quantifiers greedy unless they end with "?". Known are
//   characters, ., classes with ranges, nesting and negation, \s \d \w \p{..} by general category (and their opposites)
//   alternatives, groups ( ) (?: ) (?i: ), quantifiers ? * + {n} {n,} {n,m}, lazy ones, possessive ones of one set
//   lookahead for one character (?=x) (?!x), and $ for the end of a line
// and everything else is refused by name, with what it would match being unbounded memory or the empty text. Nothing of
// a model's file can make matching slow: each character costs one look-up in a table, and what an attempt has read in
// vain no later attempt reads again (Matcher), so that all matches of a text take linear time.
//
// A lookahead for one character needs no machinery of its own: a transition sees the next character before it takes it,
// so that it knows which threads may go on and whether one of them has ended.
//
// Thread: immutable once made; any thread. A Matcher belongs to one.

#ifndef QUIRE_SERVER_TOKENIZER_REGEX_H_
#define QUIRE_SERVER_TOKENIZER_REGEX_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/tokenizer/code_point_set.h"

namespace quire {

class Regex {
 public:
  // What a text is made of: UTF-8, where a byte that is none counts as U+FFFD; or bytes that stand for the characters
  // by which GPT-2's alphabet spells them (byte_alphabet.h).
  enum class Alphabet { kUtf8, kSpelledBytes };

  struct Match {
    size_t begin;
    size_t end;  // > begin
  };
  class Matcher;

  // The error says what in `pattern` is not known, too large, or matches the empty text.
  static absl::StatusOr<Regex> Compile(absl::string_view pattern);

  // Matches `text` itself. REQUIRES: it is not empty, and valid UTF-8.
  static absl::StatusOr<Regex> Literal(absl::string_view text);

  // Matches one character of `set`, or as many as there are.
  static Regex OneOf(const CodePointSet& set, bool repeated);

 private:
  struct Automaton;
  friend struct RegexCompiler;

  Regex() = default;

  // The class of the character at text[at], and its bytes.
  template <Alphabet alphabet>
  std::pair<uint8_t, uint8_t> ClassAt(absl::string_view text, size_t at) const;

  static constexpr uint16_t kDead = 0;
  static constexpr uint16_t kStart = 1;
  static constexpr uint16_t kMatched = 0x8000;  // of a transition: a match ends before the character
  static constexpr uint32_t kBlockLen = 256;    // code points that share an entry of block_of_

  // Code points that all sets of the pattern treat alike share a class; the text's end is the last class.
  uint8_t end_class_ = 0;
  std::array<uint8_t, 128> class_of_ascii_ = {};
  std::array<uint8_t, 256> class_of_spelled_byte_ = {};
  std::vector<uint16_t> block_of_;  // [code point / kBlockLen] index of a block
  std::vector<uint8_t> class_of_;   // [block][kBlockLen] class
  std::vector<uint16_t> next_;      // [state][end_class_ + 1] state, and kMatched
};

// The matches of one text. REQUIRES: regex and text outlive it.
class Regex::Matcher {
 public:
  Matcher(const Regex& regex, absl::string_view text, Alphabet alphabet)
      : regex_(regex), text_(text), alphabet_(alphabet) {}

  // The leftmost match that begins at `begin` or later.
  std::optional<Match> Next(size_t begin);

 private:
  template <Alphabet alphabet>
  std::optional<Match> NextIn(size_t begin);
  template <Alphabet alphabet>
  size_t EndOfMatchAt(size_t begin);
  template <Alphabet alphabet>
  void RememberFailure(size_t begin, size_t matched_end, size_t end);

  const Regex& regex_;
  const absl::string_view text_;
  const Alphabet alphabet_;
  // (position, state) from which no match ends any more, of attempts that read far in vain (Reps, "Maximal-munch
  // tokenization in linear time", TOPLAS 1998). Positions are in [failed_begin_, failed_end_).
  absl::flat_hash_set<std::pair<size_t, uint16_t>> failed_;
  size_t failed_begin_ = SIZE_MAX;
  size_t failed_end_ = 0;
};

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_REGEX_H_
