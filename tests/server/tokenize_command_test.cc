#include "server/tokenizer/tokenize_command.h"

#include <sstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/tokenizer_fixture.h"

namespace quire {
namespace {

struct Outcome {
  int code;
  std::string out;
  std::string err;
};

Outcome Pipe(const std::string& input, bool no_special, bool decode) {
  static const Tokenizer* const tokenizer = FixtureTokenizer("gpt2").release();
  std::istringstream in(input);
  std::ostringstream out, err;
  const int code = RunTokenizeCommand(*tokenizer, no_special, decode, in, out, err);
  return {code, out.str(), err.str()};
}

TEST(TokenizeCommand, EachLineIsAnArrayOfIds) {
  EXPECT_EQ(Pipe("\"!\"\n\"\"\n", false, false).out, "[0,2]\n[0]\n");
  EXPECT_EQ(Pipe("\"!\"\n\"\"\n", true, false).out, "[2]\n[]\n");
  EXPECT_EQ(Pipe("\"\\u0021\"", true, false).out, "[2]\n");
  EXPECT_EQ(Pipe("", true, false).out, "");
}

TEST(TokenizeCommand, DecodeIsTheReverse) {
  const std::string line = R"("a \"b\"\n<|end|> d\u00e9j\u00e0 \u2028 \ud83d\udc4d")";
  const Outcome ids = Pipe(line + "\n", true, false);
  EXPECT_EQ(ids.code, 0);
  EXPECT_EQ(Pipe(ids.out, false, true).out, line + "\n");
}

TEST(TokenizeCommand, DecodeKeepsSpecialTokensAndReplacesHalfCharacters) {
  EXPECT_EQ(Pipe("[0,2,1]\n[]\n", false, true).out, "\"<|begin|>!<|end|>\"\n\"\"\n");
  const std::string a_tilde = Pipe("\"\\u00c3\"", true, false).out;  // C3 83: two tokens
  ASSERT_NE(a_tilde.find(','), std::string::npos);
  EXPECT_EQ(Pipe(a_tilde.substr(0, a_tilde.find(',')) + "]\n", false, true).out, "\"\\ufffd\"\n");
}

TEST(TokenizeCommand, TheFirstBadLineEndsIt) {
  for (const char* bad : {"5", "[1]", "\"a", "", "{\"a\":1}", "\"\\ud800\"", "\"\xFF\"", "[[1]]", "\"a\" \"b\""}) {
    const Outcome outcome = Pipe(std::string("\"!\"\n") + bad + "\n\"!\"\n", true, false);
    EXPECT_EQ(outcome.code, 1) << bad;
    EXPECT_EQ(outcome.out, "[2]\n") << bad;
    EXPECT_THAT(outcome.err, testing::MatchesRegex("tokenize: line 2 [^\n]*\n")) << bad;
  }
  for (const char* bad : {"5", "\"a\"", "[-1]", "[1.5]", "[600]", "[\"1\"]", "[1", "[[1]]"}) {
    const Outcome outcome = Pipe(std::string("[2]\n") + bad + "\n[2]\n", true, true);
    EXPECT_EQ(outcome.code, 1) << bad;
    EXPECT_EQ(outcome.out, "\"!\"\n") << bad;
    EXPECT_THAT(outcome.err, testing::MatchesRegex("tokenize: line 2 [^\n]*\n")) << bad;
  }
}

}  // namespace
}  // namespace quire
