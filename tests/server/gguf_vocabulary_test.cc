#include "server/tokenizer/gguf_vocabulary.h"

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/tokenizer/byte_alphabet.h"
#include "server/tokenizer/tokenizer.h"
#include "tests/server/tokenizer_fixture.h"

namespace quire {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;
using Ids = std::vector<uint32_t>;
using Pairs = std::map<std::string, GgufValue, std::less<>>;

// A view of `texts`.
GgufArray Texts(const std::vector<std::string>& texts) {
  return {.type = GgufValueType::kText, .count = texts.size(), .texts = {texts.begin(), texts.end()}};
}

template <typename T>
GgufArray Numbers(GgufValueType type, const std::vector<T>& numbers) {
  return {.type = type, .count = numbers.size(), .numbers = reinterpret_cast<const std::byte*>(numbers.data())};
}

std::unique_ptr<Tokenizer> Make(const Pairs& pairs) {
  absl::StatusOr<TokenizerSpec> spec = ReadGgufVocabulary(GgufMetadata("v.gguf", pairs));
  if (!spec.ok()) {
    ADD_FAILURE() << spec.status();
    return nullptr;
  }
  return std::make_unique<Tokenizer>(*std::move(spec));
}

std::string Error(const Pairs& pairs) {
  const absl::StatusOr<TokenizerSpec> spec = ReadGgufVocabulary(GgufMetadata("v.gguf", pairs));
  return spec.ok() ? "" : std::string(spec.status().message());
}

// The vocabulary of the fixture gpt2, as a converter writes it.
class ByteLevelGguf : public testing::Test {
 protected:
  ByteLevelGguf() {
    const json model = json::parse(TokenizerText("gpt2"))["model"];
    names_.resize(model["vocab"].size());
    for (const auto& item : model["vocab"].items()) {
      names_[item.value().get<size_t>()] = item.key();
    }
    types_.assign(names_.size(), 1);
    types_[0] = types_[1] = 3;  // the control tokens <|begin|> and <|end|>
    for (const json& merge : model["merges"]) {
      merges_.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    }
    pairs_ = {{"tokenizer.ggml.model", absl::string_view("gpt2")},
              {"tokenizer.ggml.pre", absl::string_view("gpt-2")},
              {"tokenizer.ggml.tokens", Texts(names_)},
              {"tokenizer.ggml.token_type", Numbers(GgufValueType::kInt32, types_)},
              {"tokenizer.ggml.merges", Texts(merges_)},
              {"tokenizer.ggml.bos_token_id", uint64_t{0}},
              {"tokenizer.ggml.eos_token_id", uint64_t{1}}};
  }

  std::vector<std::string> names_, merges_;
  std::vector<int32_t> types_;
  Pairs pairs_;
};

TEST_F(ByteLevelGguf, EncodesAsTheFileItIsMadeFrom) {
  const std::unique_ptr<Tokenizer> tokenizer = Make(pairs_);
  ASSERT_NE(tokenizer, nullptr);
  const json cases = json::parse(ReadText(FixturePath("gpt2.cases.json")));
  for (const json& c : cases["encode"]) {
    EXPECT_EQ(tokenizer->Encode(c[0].get<std::string>(), false), c[1].get<Ids>()) << c[0];
  }
}

TEST_F(ByteLevelGguf, EveryNameOfASplitterIsOne) {
  pairs_["tokenizer.ggml.pre"] = absl::string_view("nowhere");
  const std::string error = Error(pairs_);
  EXPECT_THAT(error, AllOf(StartsWith("v.gguf: tokenizer.ggml.pre is \"nowhere\"; allowed: "),
                           HasSubstr("deepseek-llm"), HasSubstr("qwen35")));
  std::string names = error.substr(error.find("allowed: ") + 9);
  for (size_t at = 0; at < names.size();) {
    const size_t end = std::min(names.find(", ", at), names.size());
    const std::string name = names.substr(at, end - at);
    pairs_["tokenizer.ggml.pre"] = absl::string_view(name);
    const std::unique_ptr<Tokenizer> tokenizer = Make(pairs_);
    ASSERT_NE(tokenizer, nullptr) << name;
    const std::string text = "Once upon a time,\n\n1234 \u00c9t\u00e9s \u4e2d\u56fd!!  x";
    EXPECT_EQ(tokenizer->DecodeBytes(tokenizer->Encode(text, false), false), text) << name;
    at = end + 2;
  }
}

TEST_F(ByteLevelGguf, BeginsAndEndsTextsAsItSays) {
  EXPECT_EQ(Make(pairs_)->Encode("", true), Ids());
  pairs_["tokenizer.ggml.add_bos_token"] = true;
  EXPECT_THAT(Make(pairs_)->Encode("", true), ElementsAre(0));
  pairs_["tokenizer.ggml.add_eos_token"] = true;
  EXPECT_THAT(Make(pairs_)->Encode("", true), ElementsAre(0, 1));
  pairs_["tokenizer.ggml.bos_token_id"] = uint64_t{names_.size()};
  EXPECT_THAT(Error(pairs_), AllOf(StartsWith("v.gguf: "), HasSubstr("tokenizer.ggml.bos_token_id")));
}

TEST_F(ByteLevelGguf, ControlTokensAreSpecialAndTheirTextStaysText) {
  const std::unique_ptr<Tokenizer> tokenizer = Make(pairs_);
  EXPECT_TRUE(tokenizer->IsSpecial(0));
  EXPECT_GT(tokenizer->Encode("<|begin|>", false).size(), 1u);
  EXPECT_THAT(tokenizer->EncodeTrusted("<|begin|>", false), ElementsAre(0));
}

TEST_F(ByteLevelGguf, WhatDoesNotFitTogetherIsRefused) {
  Pairs pairs = pairs_;
  pairs["tokenizer.ggml.model"] = absl::string_view("bert");
  EXPECT_THAT(Error(pairs), HasSubstr("tokenizer.ggml.model is \"bert\"; allowed: gpt2, llama, t5"));
  pairs = pairs_;
  pairs.erase("tokenizer.ggml.merges");
  EXPECT_THAT(Error(pairs), HasSubstr("tokenizer.ggml.merges"));
  const std::vector<std::string> unknown = {"no where"}, empty = {""}, none;
  pairs["tokenizer.ggml.merges"] = Texts(unknown);
  EXPECT_THAT(Error(pairs), HasSubstr("tokenizer.ggml.merges[0] is \"no where\"; allowed: two tokens"));
  pairs["tokenizer.ggml.merges"] = Texts(empty);
  EXPECT_THAT(Error(pairs), HasSubstr("tokenizer.ggml.merges[0]"));
  pairs = pairs_;
  const std::vector<int32_t> few = {1, 1};
  pairs["tokenizer.ggml.token_type"] = Numbers(GgufValueType::kInt32, few);
  EXPECT_THAT(Error(pairs), HasSubstr("token_type has 2 entries; allowed: 600"));
  pairs["tokenizer.ggml.tokens"] = Texts(none);
  EXPECT_THAT(Error(pairs), HasSubstr("tokenizer.ggml.tokens has 0 entries"));
}

// A sentencepiece vocabulary by hand: <unk> <s> </s>, the bytes, then pieces.
struct SentencePieceGguf {
  SentencePieceGguf() {
    Add("<unk>", 0, 2);
    Add("<s>", 0, 3);
    Add("</s>", 0, 3);
    for (int byte = 0; byte < 256; ++byte) {
      const char* const digits = "0123456789ABCDEF";
      Add(std::string("<0x") + digits[byte / 16] + digits[byte % 16] + ">", 0, 6);
    }
    for (const char* piece : {"\u2581", "a", "b", "ab", "\u2581a", "\u2581ab"}) {
      Add(piece, -static_cast<float>(names.size()), 1);
    }
  }

  void Add(const std::string& name, float score, int32_t type) {
    names.push_back(name);
    scores.push_back(score);
    types.push_back(type);
  }

  Pairs pairs(const char* model = "llama") const {
    return {{"tokenizer.ggml.model", absl::string_view(model)},
            {"tokenizer.ggml.tokens", Texts(names)},
            {"tokenizer.ggml.scores", Numbers(GgufValueType::kFloat32, scores)},
            {"tokenizer.ggml.token_type", Numbers(GgufValueType::kInt32, types)}};
  }

  std::vector<std::string> names;
  std::vector<float> scores;
  std::vector<int32_t> types;
};

constexpr uint32_t kPieces = 3 + 256;

TEST(SentencePieceGguf, MergesByScoreWithASpaceInFrontAndBytesForTheRest) {
  const SentencePieceGguf vocabulary;
  const std::unique_ptr<Tokenizer> tokenizer = Make(vocabulary.pairs());
  EXPECT_THAT(tokenizer->Encode("ab", true), ElementsAre(1, kPieces + 5));
  EXPECT_THAT(tokenizer->Encode("a\n", false), ElementsAre(kPieces + 4, 3 + '\n'));
  EXPECT_EQ(tokenizer->DecodeBytes(tokenizer->Encode("ab b", true), true), "ab b");
  Pairs pairs = vocabulary.pairs();
  pairs["tokenizer.ggml.add_space_prefix"] = false;
  EXPECT_THAT(Make(pairs)->Encode("ab", false), ElementsAre(kPieces + 3));
}

TEST(SentencePieceGguf, ScoresOfPathsDecideForUnigram) {
  SentencePieceGguf vocabulary;
  vocabulary.scores.back() = -1;  // "\u2581ab"
  EXPECT_THAT(Make(vocabulary.pairs("t5"))->Encode("ab", false), ElementsAre(kPieces + 5));
}

TEST(SentencePieceGguf, HostileVocabulariesAreRefused) {
  SentencePieceGguf vocabulary;
  Pairs pairs = vocabulary.pairs();
  pairs.erase("tokenizer.ggml.scores");
  EXPECT_THAT(Error(pairs), HasSubstr("tokenizer.ggml.scores"));
  pairs = vocabulary.pairs("t5");
  const std::vector<uint8_t> map = {0xFF, 0xFF, 0xFF, 0x7F, 1, 2, 3, 4};
  pairs["tokenizer.ggml.precompiled_charsmap"] = Numbers(GgufValueType::kUint8, map);
  EXPECT_THAT(Error(pairs), AllOf(StartsWith("v.gguf: "), HasSubstr("precompiled_charsmap of 8 bytes")));
  vocabulary.Add("<0xZZ>", 0, 6);
  EXPECT_THAT(Error(vocabulary.pairs()), AllOf(StartsWith("v.gguf: "), HasSubstr("\"<0xZZ>\" of type byte")));
}

// A map whose trie leads anywhere: nothing is found there, and nothing outside of it is read.
TEST(SentencePieceGguf, OffsetsOfACharacterMapStayInsideIt) {
  const SentencePieceGguf vocabulary;
  std::vector<uint8_t> map = {64, 0, 0, 0};
  for (int i = 0; i < 64; ++i) {
    map.push_back(static_cast<uint8_t>(i % 4 == 0 ? i / 4 * 16 + 1 : 0xFF - i));
  }
  map.insert(map.end(), {'x', 0});
  Pairs pairs = vocabulary.pairs("t5");
  pairs["tokenizer.ggml.precompiled_charsmap"] = Numbers(GgufValueType::kUint8, map);
  const std::unique_ptr<Tokenizer> tokenizer = Make(pairs);
  ASSERT_NE(tokenizer, nullptr);
  std::string text;
  for (int byte = 0; byte < 256; ++byte) {
    text += static_cast<char>(byte);
  }
  tokenizer->Encode(text, true);
}

}  // namespace
}  // namespace quire
