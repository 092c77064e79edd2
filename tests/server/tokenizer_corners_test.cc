// What `tokenizers` does where nobody would guess it, found by tests/oracle/tokenizer_sweep.py. Expected values are
// what the library (0.23) answers.

#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/tokenizer/tokenizer.h"
#include "tests/server/tokenizer_fixture.h"

namespace quire {
namespace {

using nlohmann::json;
using testing::ElementsAre;

// A tokenizer.json with `model` and what `parts` says.
std::unique_ptr<Tokenizer> Make(json model, json parts = json::object()) {
  json document = {{"version", "1.0"}, {"added_tokens", json::array()}, {"decoder", {{"type", "Fuse"}}}};
  document["model"] = std::move(model);
  document.update(parts);
  return ParseOrDie(document.dump());
}

json Bpe(json vocab) { return {{"type", "BPE"}, {"vocab", std::move(vocab)}, {"merges", json::array()}}; }

json Added(const std::string& content, uint32_t id, bool lstrip = false, bool rstrip = false) {
  return {{"id", id},         {"content", content},  {"single_word", false}, {"lstrip", lstrip},
          {"rstrip", rstrip}, {"normalized", false}, {"special", false}};
}

json Metaspace(const char* scheme) {
  return {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}, {"split", true}};
}

TEST(TokenizerCorners, BlanksThatATokenHasTakenAreNoTokenOfTheirOwn) {
  const auto tokenizer = Make(Bpe({{"a", 0}}), {{"added_tokens", {Added(" ", 1, true, true)}}});
  EXPECT_THAT(tokenizer->Encode("a   a ", false), ElementsAre(0, 1, 0, 1));
}

TEST(TokenizerCorners, AnUnknownCharacterComesBehindThoseThatAreSpelledByBytes) {
  json model = Bpe({{"<unk>", 0}, {"a", 1}, {"<0xC3>", 2}, {"<0xA9>", 3}});
  model.update({{"unk_token", "<unk>"}, {"byte_fallback", true}, {"fuse_unk", false}});
  EXPECT_THAT(Make(model)->Encode("日日éa日é", false), ElementsAre(0, 2, 3, 0, 1, 2, 3, 0));
  model["fuse_unk"] = true;
  EXPECT_THAT(Make(model)->Encode("日日éa日é", false), ElementsAre(2, 3, 0, 1, 2, 3, 0));
}

TEST(TokenizerCorners, MetaspaceHidesItsCharacterAnywhereInTheFirstTokenAndNoBlankOfTheTokenItself) {
  const auto tokenizer = Make(Bpe({{"▁a▁", 0}, {"▁▁", 1}, {"b", 2}}),
                              {{"added_tokens", {Added(" c", 3)}}, {"decoder", Metaspace("always")}});
  EXPECT_EQ(tokenizer->Decode({0, 0}, false), "a a ");
  EXPECT_EQ(tokenizer->Decode({1, 0}, false), " a ");
  EXPECT_EQ(tokenizer->Decode({3, 3}, false), " c c");
  EXPECT_EQ(tokenizer->Decode({2, 0}, false), "b a ");
}

TEST(TokenizerCorners, BlanksAreStrippedFromTheTextThatByteTokensHaveBecome) {
  const json strip = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}};
  const json undo = {{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}};
  const json decoders = {undo, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}, strip};
  const auto tokenizer = Make(Bpe({{"<0x20>", 0}, {"<0xC6>", 1}, {"h", 2}, {"▁h", 3}}),
                              {{"decoder", {{"type", "Sequence"}, {"decoders", decoders}}}});
  EXPECT_EQ(tokenizer->DecodeLikeLibrary({0, 1, 2}, false), "\uFFFD\uFFFDh");
  EXPECT_EQ(tokenizer->DecodeLikeLibrary({0, 2}, false), "h");
  EXPECT_EQ(tokenizer->DecodeLikeLibrary({3, 0, 1}, false), "h\uFFFD\uFFFD");
  EXPECT_EQ(tokenizer->DecodeLikeLibrary({0, 3}, false), " h");
}

TEST(TokenizerCorners, ScoresAreThoseThatTheLibraryReads) {
  // From the text itself: a double written and read again could not show it.
  const std::string text =
      R"({"version": "1.0", "decoder": {"type": "Fuse"}, "model": {"type": "Unigram", "unk_id": 0, "vocab":
      [["<unk>", 0.0], ["a", -3.8836681012489134], ["aaaa", -6.222009221013688], ["b", -1.7503551584212023], ["bb", -4.4301]]}})";
  const auto tokenizer = ParseOrDie(text);
  EXPECT_THAT(tokenizer->Encode("aaaaaa", false), ElementsAre(1, 1, 2));
  EXPECT_THAT(tokenizer->Encode("bbbaaaaa", false), ElementsAre(3, 3, 3, 1, 2));
  EXPECT_THAT(tokenizer->Encode("baaaaaaaaaaaaa", false), ElementsAre(3, 1, 2, 2, 2));
}

TEST(TokenizerCorners, MetaspaceFirstLooksAtWhereTheTextBeganBeforeItWasNormalized) {
  const auto tokenizer = Make(Bpe({{"a", 0}, {"▁", 1}}),
                              {{"normalizer", {{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}}},
                               {"pre_tokenizer", Metaspace("first")}});
  EXPECT_THAT(tokenizer->Encode(" a", false), ElementsAre(0));
  EXPECT_THAT(tokenizer->Encode("a a", false), ElementsAre(1, 0, 1, 0));
  const json replace = {{"type", "Replace"}, {"pattern", {{"Regex", "b+"}}}, {"content", "a"}};
  const auto replacing =
      Make(Bpe({{"a", 0}, {"▁", 1}}), {{"normalizer", replace}, {"pre_tokenizer", Metaspace("first")}});
  EXPECT_THAT(replacing->Encode("b", false), ElementsAre(1, 0));
  EXPECT_THAT(replacing->Encode("bb", false), ElementsAre(0));
}

}  // namespace
}  // namespace quire
