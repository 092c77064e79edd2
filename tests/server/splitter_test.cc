#include "server/tokenizer/splitter.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quire {
namespace {

using testing::ElementsAre;

std::vector<std::string> Words(Splitter splitter, absl::string_view text) {
  std::vector<std::string> words;
  for (size_t begin = 0, end; begin < text.size(); begin = end) {
    end = EndOfWord(splitter, text, begin);
    words.emplace_back(text.substr(begin, end - begin));
    if (end <= begin) {
      ADD_FAILURE() << "an empty word";
      break;
    }
  }
  return words;
}

std::vector<std::string> Gpt2(absl::string_view text) { return Words(Splitter::kGpt2, text); }
std::vector<std::string> Llama3(absl::string_view text) { return Words(Splitter::kLlama3, text); }
std::vector<std::string> Qwen2(absl::string_view text) { return Words(Splitter::kQwen2, text); }

TEST(Gpt2Splitter, OneSpaceGoesWithTheWordAfterIt) {
  EXPECT_THAT(Gpt2("Hello  big world!"), ElementsAre("Hello", " ", " big", " world", "!"));
  EXPECT_THAT(Gpt2(" a 12 ?!"), ElementsAre(" a", " 12", " ?!"));
}

TEST(Gpt2Splitter, OtherWhitespaceStandsAlone) {
  EXPECT_THAT(Gpt2("a\n\nb"), ElementsAre("a", "\n", "\n", "b"));
  EXPECT_THAT(Gpt2("a\t b"), ElementsAre("a", "\t", " b"));
  EXPECT_THAT(Gpt2("a\u3000\u3000b"), ElementsAre("a", "\u3000", "\u3000", "b"));
}

TEST(Gpt2Splitter, WhitespaceAtTheEndIsOneWord) { EXPECT_THAT(Gpt2("a \n\t "), ElementsAre("a", " \n\t ")); }

TEST(Gpt2Splitter, ContractionsAreLowerCaseOnly) {
  EXPECT_THAT(Gpt2("it's IT'S 'x we'll"), ElementsAre("it", "'s", " IT", "'", "S", " '", "x", " we", "'ll"));
  EXPECT_THAT(Gpt2("''s"), ElementsAre("''", "s"));
}

TEST(Gpt2Splitter, LettersNumbersAndTheRestAreApart) {
  EXPECT_THAT(Gpt2("caf\u00e92024\u2014\u65e5\u672ce\u0301"),
              ElementsAre("caf\u00e9", "2024", "\u2014", "\u65e5\u672ce", "\u0301"));
}

TEST(Llama3Splitter, AnyCharacterGoesWithTheLettersAfterIt) {
  EXPECT_THAT(Llama3("a-b\tc (d"), ElementsAre("a", "-b", "\tc", " (", "d"));
  EXPECT_THAT(Llama3("a\nb"), ElementsAre("a", "\n", "b"));
}

TEST(Llama3Splitter, NumbersAreCutByThreeDigits) {
  EXPECT_THAT(Llama3("a 1234567"), ElementsAre("a", " ", "123", "456", "7"));
  EXPECT_THAT(Qwen2("a 123"), ElementsAre("a", " ", "1", "2", "3"));
}

TEST(Llama3Splitter, WhitespaceIsCutAfterItsLastLineEnd) {
  EXPECT_THAT(Llama3("a  \n \n  b"), ElementsAre("a", "  \n \n", " ", " b"));
  EXPECT_THAT(Llama3("a?\r\n\n b"), ElementsAre("a", "?\r\n\n", " b"));
  EXPECT_THAT(Llama3("a   "), ElementsAre("a", "   "));
}

TEST(Llama3Splitter, ContractionsIgnoreCase) {
  EXPECT_THAT(Llama3("IT'S we'Ll 'Re\u017F'\u017Fx"),
              ElementsAre("IT", "'S", " we", "'Ll", " '", "Re\u017F", "'\u017F", "x"));
}

TEST(Splitter, BytesThatAreNoUtf8AreWordsOfTheOtherKind) {
  EXPECT_THAT(Gpt2("a\xFF\xC3 b"), ElementsAre("a", "\xFF\xC3", " b"));
  EXPECT_THAT(Llama3("\xE6\x97"), ElementsAre("\xE6\x97"));
}

TEST(Splitter, IsKnownByItsExactText) {
  EXPECT_EQ(SplitterOf(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"),
            Splitter::kGpt2);
  EXPECT_EQ(SplitterOf(R"(\s+)"), std::nullopt);
  EXPECT_EQ(SplitterOf(""), std::nullopt);
}

}  // namespace
}  // namespace quire
