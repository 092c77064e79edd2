#include "client/load/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

namespace quire::client {
namespace {

using ::testing::HasSubstr;

// A token for each byte.
absl::StatusOr<std::vector<uint32_t>> Bytes(const std::string& text) {
  return std::vector<uint32_t>(text.begin(), text.end());
}

// 100 ids of vocabulary; seed 1.
std::vector<Prompt> Prompts(const DatasetOptions& options, size_t count, const TokenizeText& tokenize = Bytes) {
  return MakePrompts(options, count, 1, {true, 100, tokenize}).value();
}

std::string TempFile(const std::string& content) {
  const std::string path =
      ::testing::TempDir() + "/dataset_test_" + ::testing::UnitTest::GetInstance()->current_test_info()->name();
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

TEST(RandomDataset, LengthsFillTheRangeAndIdsStayBelowTheVocabulary) {
  DatasetOptions options;
  options.input_len = 10;
  options.output_len = 4;
  options.range_ratio = 0.5;
  uint32_t low = ~0u, high = 0, largest_id = 0;
  for (const Prompt& prompt : Prompts(options, 500)) {
    low = std::min<uint32_t>(low, prompt.ids.size());
    high = std::max<uint32_t>(high, prompt.ids.size());
    largest_id = std::max(largest_id, *std::max_element(prompt.ids.begin(), prompt.ids.end()));
    EXPECT_GE(prompt.output_len, 2u);
    EXPECT_LE(prompt.output_len, 6u);
  }
  EXPECT_EQ(low, 5u);
  EXPECT_EQ(high, 15u);
  EXPECT_EQ(largest_id, 99u);
}

TEST(RandomDataset, LengthsAreExactWithoutARange) {
  DatasetOptions options;
  options.input_len = 10;
  options.output_len = 4;
  for (const Prompt& prompt : Prompts(options, 10)) {
    EXPECT_EQ(prompt.ids.size(), 10u);
    EXPECT_EQ(prompt.output_len, 4u);
  }
}

TEST(RandomDataset, ThePrefixIsSharedAndTheRestIsNot) {
  DatasetOptions options;
  options.input_len = 20;
  options.prefix_len = 30;
  const std::vector<Prompt> prompts = *MakePrompts(options, 2, 1, {true, 50000, Bytes});
  ASSERT_EQ(prompts[0].ids.size(), 50u);
  EXPECT_TRUE(std::equal(prompts[0].ids.begin(), prompts[0].ids.begin() + 30, prompts[1].ids.begin()));
  EXPECT_NE(prompts[0].ids, prompts[1].ids);
}

TEST(RandomDataset, IsAFunctionOfTheSeed) {
  const auto ids = [](uint64_t seed) { return MakePrompts({}, 1, seed, {true, 1000, Bytes})->front().ids; };
  EXPECT_EQ(ids(1), ids(1));
  EXPECT_NE(ids(1), ids(2));
}

TEST(CorpusDataset, ExcerptsAreWholeCharactersAndCutToTheLength) {
  std::string corpus;
  for (int i = 0; i < 1000; ++i) {
    corpus += "\xE2\x82\xAC";  // €
  }
  DatasetOptions options;
  options.name = "corpus";
  options.path = TempFile(corpus);
  options.input_len = 30;
  const auto characters = [](const std::string& text) -> absl::StatusOr<std::vector<uint32_t>> {
    EXPECT_EQ(text.size() % 3, 0u) << "half a character";
    EXPECT_EQ(static_cast<uint8_t>(text[0]), 0xE2);
    return std::vector<uint32_t>(text.size() / 3, 1);
  };
  for (const Prompt& prompt : Prompts(options, 20, characters)) {
    EXPECT_EQ(prompt.ids.size(), 30u);
  }
}

TEST(CorpusDataset, AShortFileIsTheWholePrompt) {
  DatasetOptions options;
  options.name = "corpus";
  options.path = TempFile("abc");
  EXPECT_EQ(MakePrompts(options, 1, 1, {true, 100, Bytes})->front().ids, (std::vector<uint32_t>{'a', 'b', 'c'}));
}

TEST(CorpusDataset, NamesAFileThatWillNotDo) {
  DatasetOptions options;
  options.name = "corpus";
  options.path = "/nonexistent/corpus";
  EXPECT_THAT(MakePrompts(options, 1, 1, {true, 100, Bytes}).status().message(), HasSubstr("/nonexistent/corpus"));
  options.path = TempFile("");
  EXPECT_THAT(MakePrompts(options, 1, 1, {true, 100, Bytes}).status().message(), HasSubstr("is empty"));
  options.path = TempFile("\xFF");
  EXPECT_THAT(MakePrompts(options, 1, 1, {true, 100, Bytes}).status().message(), HasSubstr("not UTF-8"));
}

TEST(CustomDataset, GoesRoundAndTakesItsOwnOutputLength) {
  DatasetOptions options;
  options.name = "custom";
  options.output_len = 5;
  options.path = TempFile("{\"prompt\": \"one\", \"output_tokens\": 9}\n\n{\"prompt\": \"two\"}\n");
  const std::vector<Prompt> prompts = Prompts(options, 3);
  EXPECT_EQ(prompts[0].text, "one");
  EXPECT_EQ(prompts[0].output_len, 9u);
  EXPECT_EQ(prompts[1].text, "two");
  EXPECT_EQ(prompts[1].output_len, 5u);
  EXPECT_EQ(prompts[2].text, "one");
}

TEST(CustomDataset, NamesTheLineThatWillNotDo) {
  DatasetOptions options;
  options.name = "custom";
  options.path = TempFile("{\"prompt\": \"one\"}\n{\"text\": \"two\"}\n");
  EXPECT_THAT(MakePrompts(options, 3, 1, {true, 100, Bytes}).status().message(),
              HasSubstr("dataset_test_NamesTheLineThatWillNotDo:2: want"));
}

TEST(TraceDataset, PromptsHaveTheLengthsAndTimesAndShareBlocksOfEqualHashes) {
  DatasetOptions options;
  options.name = "trace";
  options.trace_speedup = 2;
  options.path = TempFile(
      "{\"timestamp\": 1000, \"input_length\": 600, \"output_length\": 7, \"hash_ids\": [1, 2]}\n"
      "{\"timestamp\": 4000, \"input_length\": 700, \"output_length\": 8, \"hash_ids\": [1, 3]}\n"
      "{\"timestamp\": 4000, \"input_length\": 700, \"output_length\": 8}\n");
  const std::vector<Prompt> prompts = *MakePrompts(options, 3, 1, {true, 50000, Bytes});
  EXPECT_EQ(prompts[0].ids.size(), 600u);
  EXPECT_EQ(prompts[1].output_len, 8u);
  EXPECT_EQ(prompts[0].arrival_s, 0);
  EXPECT_EQ(prompts[1].arrival_s, 1.5);
  const auto shared = std::mismatch(prompts[0].ids.begin(), prompts[0].ids.end(), prompts[1].ids.begin());
  EXPECT_EQ(shared.first - prompts[0].ids.begin(), 512);
  EXPECT_NE(prompts[1].ids[0], prompts[2].ids[0]);
  EXPECT_THAT(MakePrompts(options, 4, 1, {true, 100, Bytes}).status().message(), HasSubstr("has 3 requests"));
}

TEST(ShareGptDataset, TakesTwoTurnsAndTheAnswersLength) {
  DatasetOptions options;
  options.name = "sharegpt";
  options.path = TempFile(
      "[{\"conversations\": [{\"value\": \"a question\"}, {\"value\": \"an answer\"}]}, {\"id\": 1},"
      " {\"conversations\": [{\"value\": \"alone\"}]},"
      " {\"conversations\": [{\"value\": \"abc\"}, {\"value\": \"too short a question\"}]}]");
  const std::vector<Prompt> prompts = Prompts(options, 2);
  ASSERT_EQ(prompts.size(), 2u);
  for (const Prompt& prompt : prompts) {
    EXPECT_EQ(prompt.text, "a question");
    EXPECT_EQ(prompt.output_len, 9u);
  }
  options.path = TempFile("[]");
  EXPECT_THAT(MakePrompts(options, 1, 1, {true, 100, Bytes}).status().message(), HasSubstr("has no conversation"));
  options.path = TempFile("{}");
  EXPECT_THAT(MakePrompts(options, 1, 1, {true, 100, Bytes}).status().message(), HasSubstr("want a JSON array"));
}

TEST(Datasets, AreWordsWhereNoIdsAreTakenOrTheVocabularyIsUnknown) {
  DatasetOptions options;
  options.input_len = 6;
  for (const PromptForm& form : {PromptForm{false, 100, nullptr}, PromptForm{true, std::nullopt, nullptr}}) {
    const Prompt prompt = MakePrompts(options, 1, 1, form)->front();
    EXPECT_TRUE(prompt.ids.empty());
    EXPECT_EQ(std::count(prompt.text.begin(), prompt.text.end(), ' '), 5) << prompt.text;
    EXPECT_NE(prompt.text, MakePrompts(options, 1, 2, form)->front().text);
  }
}

}  // namespace
}  // namespace quire::client
