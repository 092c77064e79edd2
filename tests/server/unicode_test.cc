#include "server/tokenizer/unicode.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/tokenizer/byte_alphabet.h"

namespace quire {
namespace {

std::string Replaced(absl::string_view bytes) {
  std::string text;
  EXPECT_EQ(AppendUtf8(bytes, /*at_end=*/true, text), bytes.size());
  return text;
}

TEST(Unicode, RangesAscend) {
  uint32_t next = 0;
  for (const CodePointRange& range : CodePointRanges()) {
    EXPECT_LE(next, range.first);
    EXPECT_LE(range.first, range.last);
    EXPECT_TRUE(range.category != GeneralCategory::Cn || range.properties != 0) << std::hex << range.first;
    next = range.last + 1;
  }
}

TEST(Unicode, PropertiesOfKnownCodePoints) {
  EXPECT_EQ(PropertiesOf('_'), kWord | kRegexWord | kPunctuation);
  EXPECT_EQ(PropertiesOf(0x85), kSpace);
  EXPECT_EQ(PropertiesOf(0x3000), kSpace);
  EXPECT_EQ(PropertiesOf(0x180E), 0);  // no whitespace since Unicode 6.3
  EXPECT_EQ(PropertiesOf(0x2163) & kDigits, kDigits);
  EXPECT_EQ(PropertiesOf(0xBD) & kDigits, kDigits);
  EXPECT_EQ(PropertiesOf(0x301), kWord | kRegexWord | kAccent);
  EXPECT_EQ(PropertiesOf(0x4E00), kWord | kRegexWord);
  EXPECT_EQ(PropertiesOf(0x10FFFF), 0);
}

TEST(Unicode, CodePointsAreWrittenAsTheyAreRead) {
  for (const uint32_t code_point : {0u, 0x7Fu, 0x80u, 0x7FFu, 0x800u, 0xFFFFu, 0x10000u, 0x10FFFFu}) {
    std::string text;
    AppendCodePoint(code_point, text);
    EXPECT_EQ(NextUtf8(text).code_point, code_point);
    EXPECT_EQ(NextUtf8(text).num_bytes, text.size());
  }
}

// Unicode 15, section 3.9, tables 3-8 to 3-11.
TEST(Unicode, EachMaximalSubpartBecomesOneReplacement) {
  EXPECT_EQ(Replaced("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA");
  EXPECT_EQ(Replaced("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA");
  EXPECT_EQ(Replaced("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA\uFFFD\uFFFDB");
  EXPECT_EQ(Replaced("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), "\uFFFD\uFFFD\uFFFD\uFFFDA");
}

TEST(Unicode, WellFormedTextIsKept) {
  const std::string text("a\0\u0080\u07FF\u0800\uD7FF\uE000\uFFFF\U00010000\U0010FFFF", 26);
  EXPECT_EQ(Replaced(text), text);
}

TEST(Unicode, AnUnfinishedCharacterWaitsUntilTheEnd) {
  std::string text;
  EXPECT_EQ(AppendUtf8("ab\xF0\x9F\x91", /*at_end=*/false, text), 2u);
  EXPECT_EQ(text, "ab");
  EXPECT_EQ(AppendUtf8("\xF0\x9F\x91", /*at_end=*/true, text), 3u);
  EXPECT_EQ(text, "ab\uFFFD");
  // A surrogate's first two bytes can become nothing: they do not wait.
  text.clear();
  EXPECT_EQ(AppendUtf8("\xED\xA0", /*at_end=*/false, text), 2u);
  EXPECT_EQ(text, "\uFFFD\uFFFD");
}

TEST(Unicode, WhereBytesAreCutMakesNoDifference) {
  const std::vector<std::string> samples = {"d\u00e9j\u00e0 \u65e5\u672c\U0001F44D",
                                            "\xF0\x9F\x91\xE6\x97\xA5\x80\xED\xA0\x80",
                                            "\xC3\xC3\xA9\xF4\x90\x80\x80\xF0\x9F", "\xE0\x80\xE0\xA0\x80\xC1\xF5"};
  for (const std::string& bytes : samples) {
    for (size_t step = 1; step < bytes.size(); ++step) {
      std::string text, waiting;
      for (size_t at = 0; at < bytes.size(); at += step) {
        waiting += bytes.substr(at, step);
        waiting.erase(0, AppendUtf8(waiting, /*at_end=*/false, text));
        EXPECT_LE(waiting.size(), 3u);
      }
      AppendUtf8(waiting, /*at_end=*/true, text);
      EXPECT_EQ(text, Replaced(bytes)) << step;
    }
  }
}

TEST(Unicode, LastCharacterIsFoundBackwards) {
  const std::string text = "a\u00e9\u65e5\U0001F44D\xA5";
  EXPECT_EQ(BeginOfLast(text, 11), 10u);  // a byte that is no UTF-8
  EXPECT_EQ(BeginOfLast(text, 10), 6u);
  EXPECT_EQ(BeginOfLast(text, 6), 3u);
  EXPECT_EQ(BeginOfLast(text, 3), 1u);
  EXPECT_EQ(BeginOfLast(text, 1), 0u);
}

TEST(ByteAlphabet, EveryByteHasANameThatSpellsIt) {
  EXPECT_EQ(NameOfByte(' '), "\u0120");
  EXPECT_EQ(NameOfByte('\n'), "\u010A");
  EXPECT_EQ(NameOfByte(0xAD), "\u0143");
  EXPECT_EQ(NameOfByte(0xE9), "\u00e9");
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(BytesOfName(NameOfByte(static_cast<uint8_t>(byte))), std::string(1, static_cast<char>(byte)));
  }
}

TEST(ByteAlphabet, OtherCharactersSpellNothing) {
  EXPECT_EQ(BytesOfName("a b"), std::nullopt);
  EXPECT_EQ(BytesOfName("\u0144"), std::nullopt);
  EXPECT_EQ(BytesOfName("a\xFF"), std::nullopt);
  EXPECT_EQ(BytesOfName(""), "");
}

}  // namespace
}  // namespace quire
