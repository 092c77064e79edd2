#include "server/tokenizer/tokenizer.h"

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/tokenizer/bpe.h"
#include "tests/server/tokenizer_fixture.h"

namespace quire {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using Ids = std::vector<uint32_t>;

// ---- against the library ----

class Library : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Tokenizer> tokenizer_ = FixtureTokenizer(GetParam());
  json cases_ = json::parse(ReadText(FixturePath(GetParam() + ".cases.json")));
};

TEST_P(Library, EncodesToTheSameIds) {
  ASSERT_FALSE(cases_["encode"].empty());
  for (const json& c : cases_["encode"]) {
    const std::string text = c[0];
    EXPECT_EQ(tokenizer_->Encode(text, /*add_special_tokens=*/false), c[1].get<Ids>()) << c[0];
    EXPECT_EQ(tokenizer_->Encode(text, /*add_special_tokens=*/true), c[2].get<Ids>()) << c[0];
  }
}

TEST_P(Library, DecodesToTheSameText) {
  ASSERT_FALSE(cases_["decode"].empty());
  for (const json& c : cases_["decode"]) {
    EXPECT_EQ(tokenizer_->DecodeLikeLibrary(c[0].get<Ids>(), /*skip_special_tokens=*/false), c[1].get<std::string>())
        << c[0];
    EXPECT_EQ(tokenizer_->DecodeLikeLibrary(c[0].get<Ids>(), /*skip_special_tokens=*/true), c[2].get<std::string>())
        << c[0];
  }
}

INSTANTIATE_TEST_SUITE_P(, Library,
                         testing::Values("gpt2", "llama3", "qwen2", "flags", "tales-5m", "qwen35", "gpt4o", "cl100k",
                                         "deepseek3", "deepseek_coder", "deepseek2", "starcoder", "mpt", "falcon",
                                         "command_r", "words", "llama2", "mistral", "gemma", "unigram", "sp_bpe",
                                         "sp_unigram"),
                         [](const auto& info) { return info.param == "tales-5m" ? "tales" : info.param; });

// ---- laws ----

TEST(Tokenizer, DecodeOfEncodeIsTheBytes) {
  for (const char* name : {"gpt2", "llama3", "qwen2", "tales-5m"}) {
    const std::unique_ptr<Tokenizer> tokenizer = FixtureTokenizer(name);
    std::mt19937 random(17);
    for (int round = 0; round < 300; ++round) {
      std::string bytes;  // often no UTF-8
      for (uint32_t i = random() % 60; i > 0; --i) {
        bytes += static_cast<char>(random() % (round % 2 == 0 ? 256 : 128));
      }
      EXPECT_EQ(tokenizer->DecodeBytes(tokenizer->Encode(bytes, false), false), bytes);
    }
  }
}

TEST(Tokenizer, TextOfSpecialTokensStaysText) {
  const std::unique_ptr<Tokenizer> tokenizer = FixtureTokenizer("gpt2");
  const Ids ids = tokenizer->Encode("<|begin|> <|end|>", /*add_special_tokens=*/false);
  EXPECT_GT(ids.size(), 2u);
  EXPECT_TRUE(std::none_of(ids.begin(), ids.end(), [&](uint32_t id) { return tokenizer->IsSpecial(id); }));
}

TEST(Tokenizer, TextOfSpecialTokensIsTheTokenInTrustedText) {
  const std::unique_ptr<Tokenizer> tokenizer = FixtureTokenizer("llama2");
  const Ids trusted = tokenizer->EncodeTrusted("<|begin|>cat[INST] x<|end|>", /*add_special_tokens=*/false);
  EXPECT_EQ(trusted.front(), 1u);
  EXPECT_EQ(trusted.back(), 2u);
  EXPECT_EQ(std::count_if(trusted.begin(), trusted.end(), [&](uint32_t id) { return tokenizer->IsSpecial(id); }), 3);
  const Ids text = tokenizer->Encode("<|begin|>cat[INST] x<|end|>", /*add_special_tokens=*/false);
  EXPECT_TRUE(std::none_of(text.begin(), text.end(), [&](uint32_t id) { return tokenizer->IsSpecial(id); }));
}

// What encoding puts in front of a text is not shown, and is shown where something stands before it.
TEST(Tokenizer, BlanksInFrontOfATextAreThoseOfEncoding) {
  for (const char* name : {"llama2", "mistral", "sp_bpe"}) {
    const std::unique_ptr<Tokenizer> tokenizer = FixtureTokenizer(name);
    const Ids ids = tokenizer->Encode("a mill", false);
    EXPECT_EQ(tokenizer->DecodeBytes(ids, true), "a mill") << name;
    Tokenizer::DecodePosition position = tokenizer->Beginning();
    std::string twice = tokenizer->DecodeBytes(ids, true);
    for (const uint32_t id : ids) {
      tokenizer->NextBytes(id, position);
    }
    for (const uint32_t id : ids) {
      twice += std::string(tokenizer->NextBytes(id, position));
    }
    EXPECT_EQ(twice, "a mill a mill") << name;
  }
}

TEST(Tokenizer, KnowsItsTokens) {
  const std::unique_ptr<Tokenizer> tokenizer = FixtureTokenizer("gpt2");
  EXPECT_EQ(tokenizer->vocab_size(), 600u);
  EXPECT_TRUE(tokenizer->IsSpecial(0));
  EXPECT_FALSE(tokenizer->IsSpecial(2));
  EXPECT_FALSE(tokenizer->IsSpecial(600));
  EXPECT_EQ(tokenizer->TokenBytes(0), "<|begin|>");
  EXPECT_EQ(tokenizer->TokenBytes(2), "!");
  EXPECT_EQ(tokenizer->TokenBytes(600), "");
  EXPECT_EQ(tokenizer->TokenBytes(UINT32_MAX), "");
  size_t longest = 0;
  for (uint32_t id = 0; id < tokenizer->vocab_size(); ++id) {
    longest = std::max(longest, tokenizer->TokenBytes(id).size());
  }
  EXPECT_EQ(tokenizer->max_token_bytes(), longest);
}

TEST(Tokenizer, ThreadsShareIt) {
  const std::unique_ptr<Tokenizer> tokenizer = FixtureTokenizer("llama3");
  const std::string text = "Once there was a miller who'd 1234 sons, " + std::string(200, 'a') + "\n\n";
  const Ids expected = tokenizer->Encode(text, true);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 50; ++round) {
        EXPECT_EQ(tokenizer->Encode(text, true), expected);
        EXPECT_EQ(tokenizer->Decode(expected, true), text);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

// Quadratic work would take minutes here.
TEST(Tokenizer, LongRunsOfOneCharacterAreNoTrap) {
  for (const char* name : {"gpt2", "llama3", "falcon", "gemma", "sp_bpe"}) {
    const std::unique_ptr<Tokenizer> tokenizer = FixtureTokenizer(name);
    for (const std::string unit : {"a", " ", "\n", "\u0301", "=", "7", "'", " \n"}) {
      std::string text;
      while (text.size() < 1 << 18) {
        text += unit;
      }
      EXPECT_EQ(tokenizer->DecodeBytes(tokenizer->Encode(text, false), false), text) << name << " " << unit;
    }
  }
}

// ---- byte pair encoding by hand ----

using Merges = std::vector<std::pair<std::string, std::string>>;

// A model over bytes with tokens for the bytes (id = byte) and for what `merges` make, in order.
struct HandMade {
  explicit HandMade(const Merges& merges) {
    for (int byte = 0; byte < 256; ++byte) {
      model.byte_ids[byte] = static_cast<uint32_t>(byte);
      Name(std::string(1, static_cast<char>(byte)));
    }
    for (uint32_t rank = 0; rank < merges.size(); ++rank) {
      const auto& [left, right] = merges[rank];
      model.merges.push_back({Name(left), Name(right), Name(left + right), rank});
    }
  }

  uint32_t Name(const std::string& bytes) {
    const auto [entry, is_new] = ids.try_emplace(bytes, static_cast<uint32_t>(tokens.size()));
    if (is_new) {
      tokens.push_back(bytes);
      model.words.emplace_back(bytes, entry->second);
    }
    return entry->second;
  }

  std::vector<std::string> Encode(absl::string_view word) const {
    Ids encoded;
    Bpe(model).Encode(word, encoded);
    std::vector<std::string> pieces;
    for (const uint32_t id : encoded) {
      pieces.push_back(tokens[id]);
    }
    return pieces;
  }

  BpeModel model;
  std::vector<std::string> tokens;
  std::map<std::string, uint32_t> ids;
};

TEST(Bpe, LowestRankFirstThenLeftmost) {
  const HandMade bpe({{"b", "c"}, {"a", "b"}, {"a", "a"}, {"bc", "d"}});
  EXPECT_THAT(bpe.Encode("abc"), ElementsAre("a", "bc"));
  EXPECT_THAT(bpe.Encode("abd"), ElementsAre("ab", "d"));
  EXPECT_THAT(bpe.Encode("aaa"), ElementsAre("aa", "a"));
  EXPECT_THAT(bpe.Encode("aaab"), ElementsAre("aa", "ab"));
  EXPECT_THAT(bpe.Encode("abcd"), ElementsAre("a", "bcd"));
}

TEST(Bpe, AMergeMayHaveALowerRankThanTheOneThatMakesItsParts) {
  const HandMade bpe({{"ab", "c"}, {"c", "d"}, {"a", "b"}});
  EXPECT_THAT(bpe.Encode("abcabcd"), ElementsAre("abc", "ab", "cd"));
}

TEST(Bpe, ATokenThatMergesDoNotMakeIsNoWord) {
  HandMade bpe(Merges{{"a", "b"}});
  bpe.Name("abc");
  EXPECT_THAT(bpe.Encode("abc"), ElementsAre("ab", "c"));
  bpe.model.ignore_merges = true;
  EXPECT_THAT(bpe.Encode("abc"), ElementsAre("abc"));
  EXPECT_THAT(bpe.Encode("abcd"), ElementsAre("ab", "c", "d"));
}

TEST(Bpe, OfTwoMergesOfOnePairTheLaterCounts) {
  const HandMade bpe({{"a", "b"}, {"b", "c"}, {"a", "b"}});
  EXPECT_THAT(bpe.Encode("abc"), ElementsAre("a", "bc"));
}

// The definition: one merge at a time, over the whole word.
std::vector<std::string> PlainBpe(const Merges& merges, std::string word) {
  std::vector<std::string> pieces;
  for (const char c : word) {
    pieces.emplace_back(1, c);
  }
  while (true) {
    size_t best = merges.size(), at = 0;
    for (size_t i = 0; i + 1 < pieces.size(); ++i) {
      for (size_t rank = 0; rank < best; ++rank) {
        if (merges[rank].first == pieces[i] && merges[rank].second == pieces[i + 1]) {
          best = rank;
          at = i;
        }
      }
    }
    if (best == merges.size()) {
      return pieces;
    }
    pieces[at] += pieces[at + 1];
    pieces.erase(pieces.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

TEST(Bpe, ShortAndLongWordsFollowTheDefinition) {
  std::mt19937 random(5);
  for (int round = 0; round < 60; ++round) {
    // Merges in random order: ranks fall and rise along the way.
    Merges merges;
    std::vector<std::string> parts = {"a", "b", "c"};
    for (int i = 0; i < 25; ++i) {
      const std::pair<std::string, std::string> merge(parts[random() % parts.size()], parts[random() % parts.size()]);
      if (std::find(merges.begin(), merges.end(), merge) == merges.end() &&
          merge.first.size() + merge.second.size() < 12) {
        merges.push_back(merge);
        parts.push_back(merge.first + merge.second);
      }
    }
    std::shuffle(merges.begin(), merges.end(), random);
    const HandMade bpe(merges);
    for (int word_round = 0; word_round < 20; ++word_round) {
      std::string word;
      for (uint32_t i = 1 + random() % 120; i > 0; --i) {
        word += static_cast<char>('a' + random() % (1 + word_round % 3));
      }
      EXPECT_EQ(bpe.Encode(word), PlainBpe(merges, word)) << word;
    }
  }
}

}  // namespace
}  // namespace quire
