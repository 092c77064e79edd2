#include "server/tokenizer/regex.h"

#include <optional>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/tokenizer/regex_program.h"
#include "server/tokenizer/unicode.h"

namespace quire {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kGpt2[] = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr char kLlama3[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|)"
    R"(\s+(?!\S)|\s+)";

std::vector<std::string> Matches(const std::string& pattern, absl::string_view text,
                                 Regex::Alphabet alphabet = Regex::Alphabet::kUtf8) {
  const absl::StatusOr<Regex> regex = Regex::Compile(pattern);
  if (!regex.ok()) {
    ADD_FAILURE() << pattern << " " << regex.status();
    return {};
  }
  std::vector<std::string> matches;
  Regex::Matcher matcher(*regex, text, alphabet);
  size_t done = 0;
  while (const std::optional<Regex::Match> match = matcher.Next(done)) {
    matches.emplace_back(text.substr(match->begin, match->end - match->begin));
    done = match->end;
  }
  return matches;
}

std::string Error(const std::string& pattern) {
  const absl::StatusOr<Regex> regex = Regex::Compile(pattern);
  return regex.ok() ? "" : std::string(regex.status().message());
}

TEST(Regex, TheFirstAlternativeThatMatchesWins) {
  EXPECT_THAT(Matches("a|ab|abc", "abc"), ElementsAre("a"));
  EXPECT_THAT(Matches("(?:a|ab)(?:c|bcd)", "abcd abc"), ElementsAre("abcd", "abc"));
  EXPECT_THAT(Matches("ab(c|d(e|f))?", "abcabdfabd"), ElementsAre("abc", "abdf", "ab"));
}

TEST(Regex, QuantifiersAreGreedyUnlessLazy) {
  EXPECT_THAT(Matches("a{2,3}", "aaaaaaa"), ElementsAre("aaa", "aaa"));
  EXPECT_THAT(Matches("a+?", "aa"), ElementsAre("a", "a"));
  EXPECT_THAT(Matches("a{2}", "aaaaa"), ElementsAre("aa", "aa"));
  EXPECT_THAT(Matches("ba{,2}", "baaab"), ElementsAre("baa", "b"));
  EXPECT_THAT(Matches("(ab)+a", "ababab"), ElementsAre("ababa"));
  EXPECT_THAT(Matches("a{x", "a{x"), ElementsAre("a{x"));
}

TEST(Regex, PossessiveQuantifiersGiveNothingBack) {
  EXPECT_THAT(Matches("a++b|a", "aaab aa"), ElementsAre("aaab", "a", "a"));
  EXPECT_THAT(Matches("[ab]?+b", "ab b bb"), ElementsAre("ab", "bb"));
  EXPECT_THAT(Matches("a{1,2}+", "aaaaa"), ElementsAre("aaaaa"));  // a count and + is a repetition of it
}

TEST(Regex, LookaheadSeesOneCharacter) {
  EXPECT_THAT(Matches(R"(\s+(?!\S)|x)", "x   x  "), ElementsAre("x", "  ", "x", "  "));
  EXPECT_THAT(Matches("a(?=b)", "abaa"), ElementsAre("a"));
  EXPECT_THAT(Matches(R"(\s+$)", "a  \n b "), ElementsAre("  ", " "));
}

TEST(Regex, ClassesAreSets) {
  EXPECT_THAT(Matches("[a-c-]+", "ab-cd"), ElementsAre("ab-c"));
  EXPECT_THAT(Matches(R"([^\s\p{L}]+)", "a12 .x"), ElementsAre("12", "."));
  EXPECT_THAT(Matches(R"([\]\\^])", "]^\\"), ElementsAre("]", "^", "\\"));
  EXPECT_THAT(Matches(R"([a[b-c]]+)", "abcd"), ElementsAre("abc"));
  EXPECT_THAT(Matches(R"([^\P{Lu}]+)", "aBCd"), ElementsAre("BC"));
  EXPECT_THAT(Matches(R"(\p{^L}+)", "a1b"), ElementsAre("1"));
  EXPECT_THAT(Matches("[\u4e00-\u9fa5]+", "a\u4e2d\u56fdb"), ElementsAre("\u4e2d\u56fd"));
  EXPECT_THAT(Matches(R"([\u4e00-\x{9fa5}]+)", "a\u4e2d\u56fdb"), ElementsAre("\u4e2d\u56fd"));
  EXPECT_THAT(Matches(".+", "a\u00e9\nb"), ElementsAre("a\u00e9", "b"));
}

TEST(Regex, IgnoringCaseFoldsAscii) {
  EXPECT_THAT(Matches("(?i:'s|'k)", "'s'S'\u017F'\u212A's"), ElementsAre("'s", "'S", "'\u017F", "'\u212A", "'s"));
  EXPECT_THAT(Matches("(?i:a)b", "AbAB"), ElementsAre("Ab"));
  EXPECT_THAT(Matches("'(?i:[sd]|ll)", "'S'Ll"), ElementsAre("'S", "'Ll"));
}

TEST(Regex, CutsAsGpt2) {
  EXPECT_THAT(Matches(kGpt2, "Hello  big world! it's"), ElementsAre("Hello", " ", " big", " world", "!", " it", "'s"));
  EXPECT_THAT(Matches(kGpt2, "a\n\nb \t"), ElementsAre("a", "\n", "\n", "b", " \t"));
  EXPECT_THAT(Matches(kGpt2, "caf\u00e92024\u2014\u65e5e\u0301"),
              ElementsAre("caf\u00e9", "2024", "\u2014", "\u65e5e", "\u0301"));
}

TEST(Regex, CutsAsLlama3) {
  EXPECT_THAT(Matches(kLlama3, "a-b\tc (d 1234567"), ElementsAre("a", "-b", "\tc", " (", "d", " ", "123", "456", "7"));
  EXPECT_THAT(Matches(kLlama3, "a  \n \n  b?\r\n\n c"), ElementsAre("a", "  \n \n", " ", " b", "?\r\n\n", " c"));
  EXPECT_THAT(Matches(kLlama3, "IT'S 'Re\u017F"), ElementsAre("IT", "'S", " '", "Re\u017F"));
}

TEST(Regex, BytesThatAreNoUtf8AreReplacementCharacters) {
  EXPECT_THAT(Matches(kGpt2, "a\xFF\xC3 b"), ElementsAre("a", "\xFF\xC3", " b"));
  EXPECT_THAT(Matches(kLlama3, "\xE6\x97"), ElementsAre("\xE6\x97"));
}

TEST(Regex, SpelledBytesAreTheCharactersThatSpellThem) {
  // 0xB2 is spelled U+00B2, a number; 0x20 is spelled U+0120, a letter.
  EXPECT_THAT(Matches(R"(\p{N}+)", "\xE4\xBD\xB2\x31 x", Regex::Alphabet::kSpelledBytes), ElementsAre("\xBD\xB2\x31"));
  EXPECT_THAT(Matches(R"(\p{Lu})", "a b", Regex::Alphabet::kSpelledBytes), ElementsAre(" "));
}

TEST(Regex, WhatIsNotKnownIsRefusedByName) {
  const std::pair<const char*, const char*> refused[] = {{"a*", "empty text"},
                                                         {"", "empty text"},
                                                         {"a|", "empty text"},
                                                         {"(?=a)", "empty text"},
                                                         {"(a", "( without"},
                                                         {"a)", ") without"},
                                                         {"[a", "[ without"},
                                                         {"[]", "empty class"},
                                                         {"*a", "has *"},
                                                         {"^a", "has ^"},
                                                         {R"(\ba)", "has \\b"},
                                                         {R"(\p{Greek})", "{Greek}"},
                                                         {R"(\pL)", "\\p without"},
                                                         {"(?<=a)b", "(?<"},
                                                         {"(?>a)", "(?>"},
                                                         {"a(?=bc)", "more than one"},
                                                         {"(ab)++", "possessive"},
                                                         {"[a&&b]", "&&"},
                                                         {"[[:alpha:]]", "[:"},
                                                         {"a{2000}", "allowed: up to"},
                                                         {"a{3,2}", "repeats"},
                                                         {"[z-a]", "range"},
                                                         {R"(\x{FFFFFFF})", "hexadecimal"},
                                                         {"\\", "too early"},
                                                         {R"((?i:\p{L}))", "case"},
                                                         {"(?i:\u00e9)", "case"},
                                                         {R"(\1)", "has \\1"},
                                                         {"(?!a)*b", "lookahead"}};
  for (const auto& [pattern, found] : refused) {
    EXPECT_THAT(Error(pattern), HasSubstr(found)) << pattern;
  }
}

TEST(Regex, WhatWouldTakeMuchMemoryIsRefused) {
  EXPECT_THAT(Error("((a{100}){100}){100}"), HasSubstr("instructions"));
  EXPECT_THAT(Error("(a|b)*a(a|b){14}"), HasSubstr("states"));
  EXPECT_THAT(Error(std::string(1000, '(')), HasSubstr("deep"));
  EXPECT_THAT(Error(std::string(1000, '[')), HasSubstr("deep"));
  EXPECT_THAT(Error(std::string(100000, 'a')), HasSubstr("bytes"));
}

// Quadratic work would take minutes here: every attempt reads to the end in vain.
TEST(Regex, WhatWasReadInVainIsNotReadAgain) {
  const std::string spaces = std::string(1 << 20, ' ') + "x";
  EXPECT_THAT(Matches(R"(\s+$)", spaces), ElementsAre());
  EXPECT_EQ(Matches(R"(\s*\n|\s)", spaces).size(), size_t{1} << 20);
  std::string mixed;
  for (int i = 0; i < 1 << 18; ++i) {
    mixed += "ab";
  }
  EXPECT_EQ(Matches("(ab)*c|a|b", mixed).size(), mixed.size());
}

// The definition: instructions tried in order of preference, one after the other.
std::optional<size_t> Backtrack(const RegexProgram& program, uint32_t pc, absl::string_view text, size_t at,
                                int& budget) {
  using Instruction = RegexProgram::Instruction;
  if (--budget < 0) {
    return std::nullopt;
  }
  const Instruction& instruction = program.instructions[pc];
  const bool at_end = at == text.size();
  switch (instruction.kind) {
    case Instruction::kMatch:
      return at;
    case Instruction::kTake:
      return !at_end && program.sets[instruction.set].Contains(static_cast<uint8_t>(text[at]))
                 ? Backtrack(program, pc + 1, text, at + 1, budget)
                 : std::nullopt;
    case Instruction::kAhead:
      return (at_end ? instruction.at_end : program.sets[instruction.set].Contains(static_cast<uint8_t>(text[at])))
                 ? Backtrack(program, pc + 1, text, at, budget)
                 : std::nullopt;
    case Instruction::kSplit:
      if (const auto end = Backtrack(program, instruction.first, text, at, budget)) {
        return end;
      }
      return Backtrack(program, instruction.second, text, at, budget);
  }
  return std::nullopt;
}

std::string RandomPattern(std::mt19937& random, int depth) {
  const char* const sets[] = {"a", "b", "c", "[ab]", "[^a]", "."};
  switch (depth > 3 ? 0 : random() % 8) {
    case 0:
    case 1:
      return sets[random() % 6];
    case 2:
      return RandomPattern(random, depth + 1) + "(?!" + sets[random() % 6] + ")";
    case 3:
      return "(?:" + RandomPattern(random, depth + 1) + "|" + RandomPattern(random, depth + 1) + ")";
    case 4: {
      const char* const quantifiers[] = {"?", "+", "*", "{1,2}", "??", "+?", "*?"};
      return std::string(sets[random() % 6]) + quantifiers[random() % 7] + RandomPattern(random, depth + 1);
    }
    case 5: {
      const char* const quantifiers[] = {"?", "{2}", "{1,3}"};
      return "(" + RandomPattern(random, depth + 1) + ")" + quantifiers[random() % 3];
    }
    default:
      return RandomPattern(random, depth + 1) + RandomPattern(random, depth + 1);
  }
}

TEST(Regex, FindsWhatBacktrackingFinds) {
  std::mt19937 random(29);
  int compared = 0;
  for (int round = 0; round < 3000; ++round) {
    const std::string pattern = RandomPattern(random, 0);
    const absl::StatusOr<Regex> regex = Regex::Compile(pattern);
    if (!regex.ok()) {
      EXPECT_THAT(std::string(regex.status().message()), testing::AnyOf(HasSubstr("empty"), HasSubstr("lookahead")));
      continue;
    }
    const absl::StatusOr<RegexProgram> program = ParseRegex(pattern);
    std::string text;
    for (uint32_t i = random() % 30; i > 0; --i) {
      text += static_cast<char>('a' + random() % 3);
    }
    Regex::Matcher matcher(*regex, text, Regex::Alphabet::kUtf8);
    size_t done = 0;
    for (size_t at = 0; at < text.size();) {
      int budget = 100000;
      const std::optional<size_t> end = Backtrack(*program, 0, text, at, budget);
      if (budget < 0) {
        break;
      }
      if (!end) {
        ++at;
        continue;
      }
      const std::optional<Regex::Match> match = matcher.Next(done);
      ASSERT_TRUE(match.has_value()) << pattern << " in " << text;
      ASSERT_EQ(match->begin, at) << pattern << " in " << text;
      ASSERT_EQ(match->end, *end) << pattern << " in " << text;
      done = at = *end;
      ++compared;
    }
  }
  EXPECT_GT(compared, 5000);
}

}  // namespace
}  // namespace quire
