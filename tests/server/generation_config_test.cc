// GenerationConfig: defaults and eos ids of a model's directory, and one-line errors for bad ones.

#include "server/generation_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace quire {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(GenerationConfigTest, FilesOwnValuesAreTheDefaults) {
  const auto config = ParseGenerationConfig(
      R"({"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.1, "repetition_penalty": 1.05,
          "frequency_penalty": 0.5, "presence_penalty": -0.5, "eos_token_id": [7, 3, 7]})",
      R"({"eos_token_id": 1})", 10);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FLOAT_EQ(config->sampling.temperature, 0.6f);
  EXPECT_EQ(config->sampling.top_k, 20u);
  EXPECT_FLOAT_EQ(config->sampling.top_p, 0.95f);
  EXPECT_FLOAT_EQ(config->sampling.min_p, 0.1f);
  EXPECT_FLOAT_EQ(config->sampling.repetition_penalty, 1.05f);
  EXPECT_FLOAT_EQ(config->sampling.frequency_penalty, 0.5f);
  EXPECT_FLOAT_EQ(config->sampling.presence_penalty, -0.5f);
  EXPECT_THAT(config->eos_ids, ElementsAre(3, 7));
}

TEST(GenerationConfigTest, WithoutItTheDefaultsArePlainAndEosIsTheModels) {
  const auto config = ParseGenerationConfig("", R"({"eos_token_id": 1})", 10);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->sampling.temperature, 1.0f);
  EXPECT_EQ(config->sampling.top_k, 0u);
  EXPECT_EQ(config->sampling.top_p, 1.0f);
  EXPECT_FALSE(config->sampling.HasPenalties());
  EXPECT_THAT(config->eos_ids, ElementsAre(1));
  EXPECT_THAT(ParseGenerationConfig("{\"eos_token_id\": null}", "{}", 10)->eos_ids, IsEmpty());
}

TEST(GenerationConfigTest, BadValuesAreNamedWithFileAndKey) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"temperature": -1})", "temperature: found -1, allowed: 0 to 100"},
      {R"({"temperature": "hot"})", "temperature: found \"hot\""},
      {R"({"top_p": 0})", "top_p: found 0, allowed: above 0 to 1"},
      {R"({"top_p": 1.5})", "top_p: found 1.5"},
      {R"({"top_k": 2.5})", "top_k: found 2.5"},
      {R"({"min_p": 2})", "min_p: found 2"},
      {R"({"eos_token_id": 10})", "eos_token_id: found 10, allowed: ids from 0 to 9"},
      {R"({"eos_token_id": [1, -1]})", "eos_token_id: found -1"},
      {R"({"eos_token_id": "x"})", "eos_token_id: found \"x\""},
      {R"({"repetition_penalty": 0})", "repetition_penalty: found 0, allowed: above 0 to 100"},
      {R"({"presence_penalty": 2.5})", "presence_penalty: found 2.5"},
      {"[1]", "allowed: an object"},
      {"{", "no JSON"},
  };
  for (const auto& [text, expected] : cases) {
    const auto config = ParseGenerationConfig(text, "{}", 10);
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(expected));
    EXPECT_THAT(std::string(config.status().message()), HasSubstr("generation_config.json"));
  }
}

TEST(GenerationConfigTest, DeepNestingIsRefusedAndDoesNoHarm) {
  EXPECT_FALSE(ParseGenerationConfig(R"({"temperature": )" + std::string(100000, '[') + "}", "", 10).ok());
  EXPECT_FALSE(
      ParseGenerationConfig(R"({"eos_token_id": )" + std::string(40, '[') + std::string(40, ']') + "}", "", 10).ok());
}

}  // namespace
}  // namespace quire
