#include "server/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/tokenizer/tokenizer.h"
#include "tests/server/tokenizer_fixture.h"

namespace quire {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// What Parse says of the fixture gpt2 after `edit`; empty if it is taken.
std::string ErrorAfter(const std::function<void(json&)>& edit, const std::string& name = "gpt2") {
  json document = json::parse(TokenizerText(name));
  edit(document);
  const auto tokenizer = Tokenizer::Parse(document.dump(), "DIR/tokenizer.json");
  return tokenizer.ok() ? "" : std::string(tokenizer.status().message());
}

// One line that names the file, what was found and what is allowed.
auto IsErrorWith(const std::string& found, const std::string& allowed) {
  return AllOf(StartsWith("DIR/tokenizer.json: "), HasSubstr(found), HasSubstr("allowed: "), HasSubstr(allowed),
               Not(HasSubstr("\n")));
}

json SplitBy(const std::string& regex) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
}

TEST(TokenizerJson, UnknownPartsAreRefusedByName) {
  const std::pair<const char*, const char*> types[] = {{"/normalizer", "BertNormalizer"},
                                                       {"/normalizer", "Precompiled"},
                                                       {"/pre_tokenizer", "BertPreTokenizer"},
                                                       {"/pre_tokenizer", "UnicodeScripts"},
                                                       {"/post_processor", "RobertaProcessing"},
                                                       {"/decoder", "WordPiece"},
                                                       {"/decoder", "CTC"}};
  for (const auto& [part, type] : types) {
    EXPECT_THAT(ErrorAfter([&](json& d) {
                  d[json::json_pointer(part)] = {{"type", type}};
                }),
                IsErrorWith(std::string(part + 1) + ".type is \"" + type + "\"", ""));
  }
  for (const char* type : {"WordPiece", "WordLevel"}) {
    EXPECT_THAT(ErrorAfter([&](json& d) { d["model"]["type"] = type; }),
                IsErrorWith(std::string("model.type is \"") + type + "\"", "BPE, Unigram"));
  }
  EXPECT_THAT(ErrorAfter([](json& d) { d["decoder"] = nullptr; }), IsErrorWith("decoder", "ByteLevel"));
  EXPECT_THAT(ErrorAfter([](json& d) { d["truncation"] = {{"max_length", 5}}; }), IsErrorWith("truncation", "null"));
  EXPECT_THAT(ErrorAfter([](json& d) { d["surprise"] = 1; }), IsErrorWith("\"surprise\"", "version"));
  EXPECT_THAT(ErrorAfter([](json& d) { d["model"]["surprise"] = 1; }), IsErrorWith("\"surprise\"", "vocab"));
  EXPECT_THAT(ErrorAfter([](json& d) { d["version"] = "2.0"; }), IsErrorWith("version is \"2.0\"", "1.0"));
}

TEST(TokenizerJson, ModelOptionsThatChangeIdsAreRefused) {
  const std::pair<const char*, json> options[] = {
      {"unk_token", "<nowhere>"},     {"byte_fallback", true}, {"continuing_subword_prefix", "##"},
      {"end_of_word_suffix", "</w>"}, {"dropout", 0.1},        {"ignore_merges", 3}};
  for (const auto& [key, value] : options) {
    EXPECT_THAT(ErrorAfter([&](json& d) { d["model"][key] = value; }), IsErrorWith(std::string("model.") + key, ""));
  }
  EXPECT_EQ(ErrorAfter([](json& d) {
              d["model"].update({{"end_of_word_suffix", ""}, {"continuing_subword_prefix", ""}, {"dropout", 0.0}});
            }),
            "");
}

json Sequence(json steps) { return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}}; }

TEST(TokenizerJson, PreTokenizersThatAreNotKnownAreRefusedByWhatIsInThem) {
  const auto with = [](json steps) { return [steps](json& d) { d["pre_tokenizer"] = Sequence(steps); }; };
  const json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  const json metaspace = {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "always"}};
  EXPECT_EQ(ErrorAfter(with({SplitBy("a|b"), bytes, SplitBy("c+")})), "");
  EXPECT_EQ(ErrorAfter(with({Sequence({metaspace, {{"type", "Digits"}}}), {{"type", "Punctuation"}}})), "");
  EXPECT_THAT(ErrorAfter(with({SplitBy("(?<=a)b"), bytes})),
              IsErrorWith("pretokenizers[0].pattern.Regex is \"(?<=a)b\"", "has the group (?<"));
  EXPECT_THAT(ErrorAfter(with({SplitBy(""), bytes})), IsErrorWith("pattern.Regex is \"\"", "not empty"));
  EXPECT_THAT(ErrorAfter(with({bytes, bytes})), IsErrorWith("pretokenizers[1].type is \"ByteLevel\"", "once"));
  EXPECT_THAT(ErrorAfter(with({bytes, metaspace})), IsErrorWith("pretokenizers[1].type is \"Metaspace\"", "before"));
  json odd = SplitBy("a");
  odd["behavior"] = "Backwards";
  EXPECT_THAT(ErrorAfter(with({odd, bytes})), IsErrorWith("behavior is \"Backwards\"", "MergedWithNext"));
  odd["behavior"] = "Removed";
  odd["pattern"] = {{"String", "a"}, {"Regex", "a"}};
  EXPECT_THAT(ErrorAfter(with({odd, bytes})), IsErrorWith("pattern", "one of"));
  EXPECT_THAT(ErrorAfter([](json& d) { d["pre_tokenizer"]["use_regex"] = 1; }), IsErrorWith("use_regex is 1", "false"));
}

TEST(TokenizerJson, DecodersUndoInTheirOrder) {
  const auto with = [](json steps) {
    return [steps](json& d) { d["decoder"] = {{"type", "Sequence"}, {"decoders", steps}}; };
  };
  const json replace = {{"type", "Replace"}, {"pattern", {{"String", "_"}}}, {"content", " "}};
  const json bytes = {{"type", "ByteFallback"}}, fuse = {{"type", "Fuse"}};
  const json strip = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}};
  EXPECT_EQ(ErrorAfter(with({replace, bytes, fuse, strip})), "");
  EXPECT_THAT(ErrorAfter(with({strip, fuse})), IsErrorWith("decoders[0].type is \"Strip\"", "in this order"));
  EXPECT_THAT(ErrorAfter(with({fuse, replace})), IsErrorWith("decoders[1].type is \"Replace\"", "in this order"));
  EXPECT_THAT(ErrorAfter(with({bytes, {{"type", "ByteLevel"}}})), IsErrorWith("\"ByteLevel\"", "in this order"));
}

TEST(TokenizerJson, IdsAreCheckedBeforeTheyAreUsed) {
  const json bad_ids[] = {-1, 1.5, "7", 1 << 20, 4294967296, nullptr, json::array()};
  for (const json& id : bad_ids) {
    EXPECT_THAT(ErrorAfter([&](json& d) { d["model"]["vocab"]["!"] = id; }),
                IsErrorWith("model.vocab[\"!\"]", "below"));
    EXPECT_THAT(ErrorAfter([&](json& d) { d["added_tokens"][0]["id"] = id; }),
                IsErrorWith("added_tokens[0].id", "below"));
    EXPECT_THAT(ErrorAfter([&](json& d) { d["post_processor"]["special_tokens"]["<|begin|>"]["ids"][0] = id; }),
                IsErrorWith("post_processor.single[0].ids", "below 600"));
  }
  EXPECT_THAT(ErrorAfter([](json& d) { d["model"]["vocab"]["!"] = 3; }), IsErrorWith("another token has", "once"));
  EXPECT_THAT(ErrorAfter([](json& d) { d["added_tokens"][1]["id"] = 7; }),
              IsErrorWith("added_tokens[1].id is 7", "1, as"));
}

TEST(TokenizerJson, AddedTokensAreNumberedAsTheLibraryDoes) {
  const auto add = [](const std::string& content, uint32_t id) {
    return [=](json& d) {
      json token = d["added_tokens"][0];
      token.update({{"content", content}, {"id", id}});
      d["added_tokens"].push_back(token);
    };
  };
  EXPECT_EQ(ErrorAfter(add("[new]", 600)), "");
  EXPECT_THAT(ErrorAfter(add("[new]", 601)), IsErrorWith("added_tokens[2].id is 601", "600, the next"));
  EXPECT_THAT(ErrorAfter(add("<|end|>", 1)), IsErrorWith("added_tokens[2].content", "once"));
  EXPECT_THAT(ErrorAfter(add("", 600)), IsErrorWith("added_tokens[2].content is \"\"", "not empty"));
  EXPECT_THAT(ErrorAfter([](json& d) { d["added_tokens"][0].erase("lstrip"); }),
              IsErrorWith("added_tokens[0].lstrip is null", "true, false"));
}

TEST(TokenizerJson, MergesNameTokens) {
  for (const json& merge : {json({"x", "nowhere"}), json("x nowhere"), json({"!", "!"})}) {
    EXPECT_THAT(ErrorAfter([&](json& d) { d["model"]["merges"][3] = merge; }),
                IsErrorWith("model.merges[3] has token", "model.vocab"));
  }
  for (const json& merge : {json("x"), json("a b c"), json({"a"}), json({"a", 1}), json(7), json::object()}) {
    EXPECT_THAT(ErrorAfter([&](json& d) { d["model"]["merges"][3] = merge; }),
                IsErrorWith("model.merges[3]", "\"a b\" or [\"a\", \"b\"]"));
  }
  for (const char* key : {"vocab", "merges"}) {
    EXPECT_THAT(ErrorAfter([&](json& d) { d["model"].erase(key); }), IsErrorWith(std::string("model.") + key, ""));
  }
}

TEST(TokenizerJson, TemplatesAreOfOneText) {
  const auto single = [](json items) { return [items](json& d) { d["post_processor"]["single"] = items; }; };
  const json a = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, b = {{"Sequence", {{"id", "B"}, {"type_id", 0}}}};
  EXPECT_EQ(ErrorAfter(single({a})), "");
  EXPECT_THAT(ErrorAfter(single({a, b})), IsErrorWith("post_processor.single[1]", "Sequence A once"));
  EXPECT_THAT(ErrorAfter(single({a, a})), IsErrorWith("post_processor.single[1]", "Sequence A once"));
  EXPECT_THAT(ErrorAfter(single(json::array())), IsErrorWith("post_processor.single", "Sequence A once"));
  EXPECT_THAT(ErrorAfter(single({a, {{"SpecialToken", {{"id", "none"}, {"type_id", 0}}}}})),
              IsErrorWith("post_processor.single[1]", "special_tokens"));
}

TEST(TokenizerJson, DeepNestingIsRefusedUnparsed) {
  for (const std::string unit : {"[", "{\"a\":"}) {
    std::string text;
    for (int i = 0; i < 200000; ++i) {
      text += unit;
    }
    EXPECT_THAT(std::string(Tokenizer::Parse(text, "DIR/tokenizer.json").status().message()),
                AllOf(StartsWith("DIR/tokenizer.json: "), HasSubstr("nested 200000 deep")));
  }
}

TEST(TokenizerJson, DamagedFilesAreErrorsOfOneLine) {
  const std::string whole = TokenizerText("llama3");
  std::mt19937 random(3);
  int errors = 0;
  for (int round = 0; round < 300; ++round) {
    std::string text = whole;
    if (round % 3 == 0) {
      text.resize(random() % text.size());
    } else if (round % 3 == 1) {
      for (int i = 0; i < 3; ++i) {
        text[random() % text.size()] = static_cast<char>(random() % 256);
      }
    } else {  // within the small parts, where it can stay JSON
      const size_t vocab = text.find("\"vocab\"");
      for (int i = 0; i < 2; ++i) {
        text[random() % vocab] = "0123456789[]{}:,\"ntf"[random() % 20];
      }
    }
    const auto tokenizer = Tokenizer::Parse(text, "DIR/tokenizer.json");
    if (!tokenizer.ok()) {
      ++errors;
      EXPECT_THAT(std::string(tokenizer.status().message()),
                  AllOf(StartsWith("DIR/tokenizer.json: "), Not(HasSubstr("\n"))));
    } else {
      (*tokenizer)->Encode("Once there was\n", true);
    }
  }
  EXPECT_GT(errors, 200);
}

// Every value of the document replaced by values of other types: an error or a tokenizer, never a crash.
TEST(TokenizerJson, AnyValueMayHaveAnyType) {
  json document = json::parse(TokenizerText("llama3"));
  document["model"]["merges"].get_ref<json::array_t&>().resize(3);
  const json others[] = {nullptr,        true,          -1,          1e300, "", "a\nb", json::array(), {1, 2},
                         json::object(), {{"type", 1}}, {{"id", {}}}};
  const json flat = document.flatten();
  std::set<std::string> seen;
  for (const auto& item : flat.items()) {
    if (item.key().find("/vocab/") != std::string::npos && item.key() != "/model/vocab/!") {
      continue;
    }
    for (json::json_pointer at(item.key()); !at.empty() && seen.insert(at.to_string()).second; at.pop_back()) {
      for (const json& other : others) {
        json edited = document;
        edited[at] = other;
        const auto tokenizer = Tokenizer::Parse(edited.dump(), "DIR/tokenizer.json");
        if (!tokenizer.ok()) {
          ASSERT_THAT(std::string(tokenizer.status().message()),
                      AllOf(StartsWith("DIR/tokenizer.json: "), Not(HasSubstr("\n"))));
        }
      }
    }
  }
}

TEST(TokenizerLoad, NamesTheFile) {
  const std::string dir = testing::TempDir() + "/quire_tokenizer_load";
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  const auto message = [&] { return std::string(Tokenizer::Load(dir).status().message()); };
  EXPECT_THAT(message(), AllOf(HasSubstr(dir + "/tokenizer.json"), HasSubstr("No such file")));
  std::ofstream(dir + "/tokenizer.json") << "{";
  EXPECT_THAT(message(), AllOf(HasSubstr(dir + "/tokenizer.json"), HasSubstr("found no JSON")));
  std::ofstream(dir + "/tokenizer.json") << TokenizerText("gpt2");
  EXPECT_TRUE(Tokenizer::Load(dir).ok());
  std::filesystem::remove_all(dir);
}

// A tokenizer.model, and files beside it that add tokens.
class AddedTokensFiles : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = testing::TempDir() + "/quire_added_" + testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::create_directories(dir_);
    std::filesystem::copy_file(FixturePath("sp_bpe.tokenizer.model"), dir_ + "/tokenizer.model",
                               std::filesystem::copy_options::overwrite_existing);
    num_pieces_ = static_cast<uint32_t>(Tokenizer::Load(dir_).value()->vocab_size());
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  void Write(const std::string& name, const std::string& text) { std::ofstream(dir_ + "/" + name) << text; }
  std::string Id(uint32_t offset) const { return std::to_string(num_pieces_ + offset); }
  std::string Error() const { return std::string(Tokenizer::Load(dir_).status().message()); }
  std::vector<uint32_t> Trusted(const std::string& text) const {
    return Tokenizer::Load(dir_).value()->EncodeTrusted(text, false);
  }
  std::vector<uint32_t> Plain(const std::string& text) const {
    return Tokenizer::Load(dir_).value()->Encode(text, false);
  }

  std::string dir_;
  uint32_t num_pieces_ = 0;
};

TEST_F(AddedTokensFiles, DecoderSaysIdsAndFlags) {
  Write("tokenizer_config.json", R"({"added_tokens_decoder": {")" + Id(0) +
                                     R"(": {"content": "<|end|>", "special": true, "rstrip": true}, ")" + Id(2) +
                                     R"(": {"content": "<tool>", "special": false}}})");
  Write("added_tokens.json", R"({"<unread>": 7})");
  EXPECT_EQ(Trusted("<|end|>  "), std::vector<uint32_t>{num_pieces_});
  EXPECT_GT(Plain("<|end|>").size(), 1u);  // text of a special token stays text
  EXPECT_EQ(Plain("<tool>"), std::vector<uint32_t>{num_pieces_ + 2});
  EXPECT_EQ(Tokenizer::Load(dir_).value()->vocab_size(), num_pieces_ + 3);
}

TEST_F(AddedTokensFiles, OlderFilesSayIdsAndWhichAreSpecial) {
  Write("added_tokens.json", R"({"<|end|>": )" + Id(0) + R"(, "<tool>": )" + Id(1) + "}");
  Write("special_tokens_map.json", R"({"eos_token": {"content": "<|end|>"}, "additional_special_tokens": ["<x>"]})");
  EXPECT_EQ(Trusted("<|end|>"), std::vector<uint32_t>{num_pieces_});
  EXPECT_GT(Plain("<|end|>").size(), 1u);
  EXPECT_EQ(Plain("<tool>"), std::vector<uint32_t>{num_pieces_ + 1});
}

TEST_F(AddedTokensFiles, WhatIsOutOfPlaceIsNamed) {
  const auto decoder = [&](const std::string& text) {
    Write("tokenizer_config.json", R"({"added_tokens_decoder": )" + text + "}");
    return Error();
  };
  EXPECT_THAT(decoder("7"), HasSubstr("tokenizer_config.json: added_tokens_decoder is 7"));
  EXPECT_THAT(decoder(R"({"x": {"content": "a"}})"), HasSubstr("allowed: ids as keys"));
  EXPECT_THAT(decoder(R"({"99999999": {"content": "a"}})"), HasSubstr("allowed: ids below"));
  EXPECT_THAT(decoder(R"({"5": {"content": ""}})"), HasSubstr("is not empty"));
  EXPECT_THAT(decoder(R"({"5": {"content": "a", "special": 1}})"), HasSubstr("added_tokens_decoder[\"5\"].special"));
  EXPECT_THAT(decoder(R"({"5": {"content": "a"}, "6": {"content": "a"}})"), HasSubstr("each text with one id"));
  std::filesystem::remove(dir_ + "/tokenizer_config.json");
  Write("added_tokens.json", R"({"a": -1})");
  EXPECT_THAT(Error(), HasSubstr("added_tokens.json: "));
  Write("added_tokens.json", "{}");
  Write("special_tokens_map.json", R"({"bos_token": 3})");
  EXPECT_THAT(Error(), HasSubstr("special_tokens_map.json: bos_token is 3"));
}

}  // namespace
}  // namespace quire
