#include "server/text_stream.h"

#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/tokenizer/unicode.h"
#include "tests/server/tokenizer_fixture.h"

namespace quire {
namespace {

using Ids = std::vector<uint32_t>;
using Options = TextStream::Options;

const Tokenizer& TheTokenizer() {
  static const Tokenizer* const tokenizer = FixtureTokenizer("gpt2").release();
  return *tokenizer;
}

constexpr uint32_t kBos = 0;  // "<|begin|>", special

// The token of each single byte of `bytes`.
Ids ByBytes(absl::string_view bytes) {
  Ids ids;
  for (const char byte : bytes) {
    for (uint32_t id = 0; id < TheTokenizer().vocab_size(); ++id) {
      if (TheTokenizer().TokenBytes(id) == absl::string_view(&byte, 1)) {
        ids.push_back(id);
        break;
      }
    }
  }
  EXPECT_EQ(ids.size(), bytes.size());
  return ids;
}

struct Outcome {
  std::string text;
  std::vector<std::string> deltas;  // one for each token taken, and the end's
  std::optional<size_t> stop;
};

Outcome Stream(const Ids& ids, const Options& options) {
  TextStream stream(TheTokenizer(), options);
  Outcome outcome;
  for (const uint32_t id : ids) {
    outcome.deltas.emplace_back();
    outcome.stop = stream.Push(id, outcome.deltas.back());
    if (outcome.stop) {
      break;
    }
  }
  outcome.deltas.emplace_back();
  stream.Finish(outcome.deltas.back());
  for (const std::string& delta : outcome.deltas) {
    outcome.text += delta;
  }
  return outcome;
}

Options WithStop(std::vector<std::string> stop, bool include_stop = false, uint32_t min_tokens = 0) {
  return {.skip_special_tokens = true, .stop = std::move(stop), .include_stop = include_stop, .min_tokens = min_tokens};
}

// ---- by hand ----

TEST(TextStream, HalfACharacterWaits) {
  const Outcome outcome = Stream(ByBytes("\u00e9\u65e5\U0001F44D!"), {});
  EXPECT_THAT(outcome.deltas, testing::ElementsAre("", "\u00e9", "", "", "\u65e5", "", "", "", "\U0001F44D", "!", ""));
}

TEST(TextStream, AnUnfinishedCharacterIsReplacedAtTheEndOnly) {
  EXPECT_THAT(Stream(ByBytes("a\xF0\x9F\x91"), {}).deltas, testing::ElementsAre("a", "", "", "", "\uFFFD"));
  EXPECT_THAT(Stream(ByBytes("\xF0\x9F\x91x"), {}).deltas, testing::ElementsAre("", "", "", "\uFFFDx", ""));
}

TEST(TextStream, ACharacterBegunInThePromptIsShownByItsCompletingBytes) {
  EXPECT_EQ(Stream(ByBytes("\x9F\x91\x8D!"), {}).text, "\uFFFD\uFFFD\uFFFD!");
}

TEST(TextStream, SpecialTokensAreTextOnlyOnRequest) {
  const Ids ids = {kBos, 2, kBos};
  EXPECT_EQ(Stream(ids, {.skip_special_tokens = true}).text, "!");
  EXPECT_EQ(Stream(ids, {.skip_special_tokens = false}).text, "<|begin|>!<|begin|>");
}

TEST(TextStream, StopStringsAreFoundAcrossTokens) {
  const Outcome outcome = Stream(ByBytes("so the end."), WithStop({"xyz", "the e"}));
  EXPECT_EQ(outcome.stop, 1u);
  EXPECT_EQ(outcome.text, "so ");
  EXPECT_EQ(outcome.deltas.size(), 8u + 1);  // the eighth token completes it
  EXPECT_EQ(Stream(ByBytes("so the end."), WithStop({"the e"}, true)).text, "so the e");
}

TEST(TextStream, StopStringsAreFoundInsideCharactersAndTokens) {
  EXPECT_EQ(Stream(ByBytes("\u00e9\u65e5\U0001F44D\u0436"), WithStop({"\U0001F44D\u0436"})).text, "\u00e9\u65e5");
  const Ids begin = {kBos};  // one token of many bytes
  Options options = WithStop({"eg"});
  options.skip_special_tokens = false;
  EXPECT_EQ(Stream(begin, options).text, "<|b");
  options.include_stop = true;
  EXPECT_EQ(Stream(begin, options).text, "<|beg");
}

TEST(TextStream, TextThatMayBeginAStopStringWaitsUntilItCannot) {
  EXPECT_THAT(Stream(ByBytes("ababac!"), WithStop({"abac?"})).deltas,
              testing::ElementsAre("", "", "", "ab", "", "", "abac!", ""));
  EXPECT_THAT(Stream(ByBytes("xab"), WithStop({"abc"})).deltas, testing::ElementsAre("x", "", "", "ab"));
}

TEST(TextStream, TheStopThatCompletesFirstWinsThenTheOneThatBeginsFirst) {
  EXPECT_EQ(Stream(ByBytes("abcde"), WithStop({"abcd", "bc"})).stop, 1u);
  EXPECT_EQ(Stream(ByBytes("abcde"), WithStop({"abcd", "bc"})).text, "a");
  EXPECT_EQ(Stream(ByBytes("abcde"), WithStop({"c", "bc", "abc", "abc"})).stop, 2u);
  Options options = WithStop({"gin", "be"});  // both complete within one token
  options.skip_special_tokens = false;
  EXPECT_EQ(Stream({kBos}, options).stop, 1u);
}

TEST(TextStream, StopsCountFromMinTokensOnAndMayBeginBefore) {
  EXPECT_EQ(Stream(ByBytes("abab"), WithStop({"ab"}, false, 3)).text, "ab");
  EXPECT_EQ(Stream(ByBytes("abab"), WithStop({"ab"}, false, 2)).text, "");
  EXPECT_EQ(Stream(ByBytes("aaaa"), WithStop({"aaa"}, false, 4)).text, "a");  // overlaps the one that did not count
  EXPECT_EQ(Stream(ByBytes("abc"), WithStop({"abc"}, false, 3)).text, "");
  EXPECT_THAT(Stream(ByBytes("ab!"), WithStop({"ab"}, false, 9)).deltas, testing::ElementsAre("", "ab", "!", ""));
}

TEST(TextStream, ATokenThatStopsIsShownOnRequestAndNotSearched) {
  for (const bool include_stop : {false, true}) {
    TextStream stream(TheTokenizer(), WithStop({"b!", "!"}, include_stop));
    std::string text;
    EXPECT_EQ(stream.Push(ByBytes("a")[0], text), std::nullopt);
    EXPECT_EQ(stream.Push(ByBytes("b")[0], text), std::nullopt);
    EXPECT_EQ(text, "a");
    stream.PushStopToken(ByBytes("!")[0], text);
    stream.Finish(text);
    EXPECT_EQ(text, include_stop ? "ab!" : "ab");
  }
}

TEST(TextStream, AStopTokenMayCompleteACharacter) {
  TextStream stream(TheTokenizer(), WithStop({}, true));
  std::string text;
  stream.Push(ByBytes("\xC3")[0], text);
  stream.PushStopToken(ByBytes("\xA9")[0], text);
  EXPECT_EQ(text, "\u00e9");
  TextStream other(TheTokenizer(), WithStop({}, false));
  text.clear();
  other.Push(ByBytes("\xC3")[0], text);
  other.PushStopToken(ByBytes("\xA9")[0], text);
  other.Finish(text);
  EXPECT_EQ(text, "\uFFFD");
}

// ---- the law, over random outputs ----

// Text of the first tokens as far as it is decided.
std::string Decided(absl::Span<const uint32_t> ids, bool skip_special_tokens) {
  std::string text;
  AppendUtf8(TheTokenizer().DecodeBytes(ids, skip_special_tokens), /*at_end=*/false, text);
  return text;
}

// Where the stop that wins ends, and which it is, in the text of the output's first `count` tokens: looked for at every
// byte that the last of them decides.
std::optional<std::pair<size_t, size_t>> PlainStop(const Ids& ids, size_t count, const Options& options) {
  if (count < options.min_tokens) {
    return std::nullopt;
  }
  const std::string before = Decided(absl::MakeSpan(ids).subspan(0, count - 1), options.skip_special_tokens);
  const std::string text = Decided(absl::MakeSpan(ids).subspan(0, count), options.skip_special_tokens);
  for (size_t end = before.size() + 1; end <= text.size(); ++end) {
    std::optional<size_t> best;
    for (size_t i = 0; i < options.stop.size(); ++i) {
      const std::string& stop = options.stop[i];
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0 &&
          (!best || stop.size() > options.stop[*best].size())) {
        best = i;
      }
    }
    if (best) {
      return std::pair(end, *best);
    }
  }
  return std::nullopt;
}

// Bytes at the end of `text` that begin a stop string.
size_t Waiting(const std::string& text, const std::vector<std::string>& stops) {
  size_t longest = 0;
  for (const std::string& stop : stops) {
    for (size_t size = std::min(stop.size() - 1, text.size()); size > longest; --size) {
      if (text.compare(text.size() - size, size, stop, 0, size) == 0) {
        longest = size;
      }
    }
  }
  return longest;
}

void ExpectTextIsAFold(const Ids& ids, const Options& options) {
  const Outcome outcome = Stream(ids, options);
  std::string shown;
  for (size_t count = 1; count <= ids.size(); ++count) {
    const std::string text = Decided(absl::MakeSpan(ids).subspan(0, count), options.skip_special_tokens);
    shown += outcome.deltas[count - 1];
    if (const auto stop = PlainStop(ids, count, options)) {
      const size_t end = options.include_stop ? stop->first : stop->first - options.stop[stop->second].size();
      ASSERT_EQ(outcome.deltas.size(), count + 1);
      ASSERT_EQ(outcome.stop, stop->second);
      ASSERT_EQ(shown, text.substr(0, end));
      ASSERT_EQ(outcome.text, shown);
      return;
    }
    ASSERT_EQ(shown, text.substr(0, text.size() - Waiting(text, options.stop)));  // no less, and no more
    std::string replaced;
    AppendUtf8(outcome.deltas[count - 1], /*at_end=*/true, replaced);
    ASSERT_EQ(outcome.deltas[count - 1], replaced);  // whole characters
  }
  ASSERT_EQ(outcome.stop, std::nullopt);
  ASSERT_EQ(outcome.text, TheTokenizer().Decode(ids, options.skip_special_tokens));
}

TEST(TextStream, TextIsAFold) {
  std::mt19937 random(11);
  std::set<bool> stopped;
  const std::vector<std::string> characters = {"a",      "b",      "ab",         " ",      "\u00e9",
                                               "\u65e5", "\u672c", "\U0001F44D", "\uFFFD", "<|"};
  const Ids bytes = ByBytes("ab \xC3\xA9\xE6\x97\xA5\x9C\xAC\xF0\x9F\x91\x8D\xFF");
  for (int round = 0; round < 4000; ++round) {
    Ids ids;
    for (uint32_t i = random() % 40; i > 0; --i) {
      if (random() % 2 == 0) {  // a whole character, byte by byte
        const Ids character = ByBytes(characters[random() % characters.size()]);
        ids.insert(ids.end(), character.begin(), character.end());
      } else if (random() % 4 != 0) {
        ids.push_back(bytes[random() % bytes.size()]);
      } else {
        ids.push_back(random() % 620);  // special ones and ids that stand for nothing among them
      }
    }
    Options options;
    options.skip_special_tokens = random() % 2 == 0;
    options.include_stop = random() % 2 == 0;
    options.min_tokens = random() % 3 == 0 ? random() % 20 : 0;
    for (uint32_t i = random() % 4; i > 0; --i) {
      std::string stop;
      for (uint32_t k = 1 + random() % 5; k > 0; --k) {
        stop += characters[random() % (random() % 2 == 0 ? 3 : characters.size())];
      }
      options.stop.push_back(stop);
    }
    ExpectTextIsAFold(ids, options);
    if (HasFatalFailure()) {
      FAIL() << "round " << round;
    }
    stopped.insert(Stream(ids, options).stop.has_value());
  }
  EXPECT_EQ(stopped.size(), 2u);
}

TEST(TextStream, OutputOfAModelStreamsToItsText) {
  const std::string text =
      "D\u00e9j\u00e0 vu: l'\u00e9t\u00e9 \u2014 \u65e5\u672c\u8a9e \U0001F44D\U0001F3FD, once there was a miller.";
  const Outcome outcome = Stream(TheTokenizer().Encode(text, true), {});
  EXPECT_EQ(outcome.text, text);
}

}  // namespace
}  // namespace quire
