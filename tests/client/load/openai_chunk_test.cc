#include "client/load/openai_chunk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quire::client {
namespace {

using ::testing::HasSubstr;

OpenAiChunk Parse(const std::string& json) { return ParseOpenAiChunk(json).value(); }

TEST(OpenAiChunk, OfACompletionHasTextEndingAndUsage) {
  OpenAiChunk chunk = Parse(R"({"choices":[{"index":0,"text":" a","finish_reason":null}],"usage":null})");
  EXPECT_EQ(chunk.text, " a");
  EXPECT_TRUE(chunk.has_output);
  EXPECT_FALSE(chunk.usage.has_value());
  chunk = Parse(R"({"choices":[{"text":"","finish_reason":null}]})");
  EXPECT_TRUE(chunk.has_output) << "a token that is half a character shows no text";
  chunk = Parse(R"({"choices":[{"text":"","finish_reason":"length"}]})");
  EXPECT_FALSE(chunk.has_output);
  EXPECT_EQ(chunk.finish_reason, "LENGTH");
  chunk = Parse(R"({"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,
                    "prompt_tokens_details":{"cached_tokens":2}}})");
  EXPECT_FALSE(chunk.has_output);
  EXPECT_EQ(chunk.usage->prompt_tokens, 5u);
  EXPECT_EQ(chunk.usage->completion_tokens, 7u);
  EXPECT_EQ(chunk.usage->cached_tokens, 2u);
}

TEST(OpenAiChunk, OfAChatCountsContentReasoningAndToolCallsButNotTheRole) {
  EXPECT_FALSE(Parse(R"({"choices":[{"delta":{"role":"assistant","content":null},"finish_reason":null}]})").has_output);
  EXPECT_FALSE(Parse(R"({"choices":[{"delta":{"role":"assistant","content":""}}]})").has_output);
  EXPECT_TRUE(Parse(R"({"choices":[{"delta":{"role":"assistant","content":"Hi"}}]})").has_output);
  EXPECT_EQ(Parse(R"({"choices":[{"delta":{"content":"Hi"}}]})").text, "Hi");
  EXPECT_EQ(Parse(R"({"choices":[{"delta":{"reasoning_content":"Hm"}}]})").text, "Hm");
  EXPECT_EQ(Parse(R"({"choices":[{"delta":{"reasoning":"Hm"}}]})").text, "Hm");
  EXPECT_TRUE(Parse(R"({"choices":[{"delta":{"tool_calls":[{"index":0}]}}]})").has_output);
  EXPECT_FALSE(Parse(R"({"choices":[{"delta":{},"finish_reason":"stop"}]})").has_output);
}

TEST(OpenAiChunk, TellsErrorsInTheShapesOfSeveralServers) {
  EXPECT_EQ(Parse(R"({"error":{"message":"too\nlong","code":400}})").error, "too long");
  EXPECT_EQ(Parse(R"({"error":"busy"})").error, "busy");
  EXPECT_EQ(Parse(R"({"object":"error","message":"no such model"})").error, "no such model");
  EXPECT_EQ(Parse(R"({"detail":"Not Found"})").error, "Not Found");
  EXPECT_EQ(Parse(R"({"error":null,"choices":[]})").error, "");
  EXPECT_EQ(OpenAiErrorMessage("<html>502"), "<html>502");
  EXPECT_THAT(OpenAiErrorMessage(R"({"error":{"code":3}})"), HasSubstr("code"));
}

TEST(OpenAiChunk, OfAnotherKindOfJsonIsAnErrorAndNeverACrash) {
  for (const char* text : {"", "[", "3", "null", "[]", "\"a\""}) {
    EXPECT_FALSE(ParseOpenAiChunk(text).ok()) << text;
  }
  for (const char* text :
       {R"({"choices":3})", R"({"choices":[3]})", R"({"choices":[{"text":4,"delta":[]}]})",
        R"({"choices":[{"delta":{"content":{},"tool_calls":3}}],"usage":[]})", R"({"usage":{"prompt_tokens":-1}})",
        R"({"error":[1]})", R"({"detail":[{"loc":1}]})", R"({"object":3})"}) {
    EXPECT_TRUE(ParseOpenAiChunk(text).ok()) << text;
  }
}

}  // namespace
}  // namespace quire::client
