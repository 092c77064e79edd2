#include "client/parse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

namespace quire::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ParseDuration, TakesTheUnitsOfTheDaemonsFlags) {
  EXPECT_EQ(*ParseDuration("250ms"), absl::Milliseconds(250));
  EXPECT_EQ(*ParseDuration("5s"), absl::Seconds(5));
  EXPECT_EQ(*ParseDuration("1m30s"), absl::Seconds(90));
}

TEST(ParseDuration, RefusesWhatIsNoPositiveFiniteTime) {
  for (const char* text : {"", "5", "5 apples", "0s", "-1s", "inf"}) {
    EXPECT_THAT(ParseDuration(text).status().message(), HasSubstr("allowed")) << text;
  }
}

TEST(ParseTokenIds, TakesAListOrAJsonArray) {
  EXPECT_THAT(*ParseTokenIds("1,2,3"), ElementsAre(1, 2, 3));
  EXPECT_THAT(*ParseTokenIds(" [1, 4294967295]\n"), ElementsAre(1, 4294967295u));
}

TEST(ParseTokenIds, RefusesWhatIsNoIdAndNamesIt) {
  for (const char* text : {"", "[]", "1,,2", "-1", "4294967296", "1.5", "[1", "one"}) {
    EXPECT_THAT(ParseTokenIds(text).status().message(), HasSubstr("is no token id")) << text;
  }
}

TEST(ParseLogitBias, IsIdAndBias) {
  EXPECT_EQ(*ParseLogitBias("42=-1.5"), std::make_pair(42u, -1.5f));
  EXPECT_FALSE(ParseLogitBias("42").ok());
  EXPECT_FALSE(ParseLogitBias("a=1").ok());
}

TEST(CheckUtf8, TakesEveryWellFormedLength) {
  EXPECT_TRUE(CheckUtf8("text", "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x99\x82").ok());  // a é € 🙂
  EXPECT_TRUE(CheckUtf8("text", "").ok());
}

TEST(CheckUtf8, NamesTheFirstBadByte) {
  const char* const bad[] = {"ab\xFF",              // no such byte
                             "ab\xC0\x80",          // overlong
                             "ab\xE0\x80\x80",      // overlong
                             "ab\xED\xA0\x80",      // a surrogate
                             "ab\xF4\x90\x80\x80",  // above U+10FFFF
                             "ab\xE2\x82"};         // cut off
  for (const char* text : bad) {
    EXPECT_EQ(CheckUtf8("the prompt", text).message(), "the prompt is not UTF-8: byte 2 begins no character");
  }
}

TEST(ReadFile, IsByteForByteAndNamesAMissingFile) {
  const std::string path = ::testing::TempDir() + "/parse_test_file";
  const std::string content("a\0b\r\n", 5);
  std::ofstream(path, std::ios::binary) << content;
  EXPECT_EQ(*ReadFile(path), content);
  std::ofstream(path, std::ios::trunc);
  EXPECT_EQ(*ReadFile(path), "");
  EXPECT_THAT(ReadFile("/nonexistent/x").status().message(), HasSubstr("/nonexistent/x"));
  EXPECT_FALSE(ReadFile(::testing::TempDir()).ok()) << "a folder is no file";
}

}  // namespace
}  // namespace quire::client
