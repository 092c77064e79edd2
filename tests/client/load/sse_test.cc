#include "client/load/sse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace quire::client {
namespace {

using ::testing::ElementsAre;

// The events of a stream that comes in pieces of `size` bytes.
std::vector<std::string> Events(const std::string& bytes, size_t size) {
  SseParser parser;
  std::vector<std::string> events;
  for (size_t at = 0; at < bytes.size(); at += size) {
    EXPECT_TRUE(parser.Feed(absl::string_view(bytes).substr(at, size),
                            [&](absl::string_view data) { events.emplace_back(data); }));
  }
  return events;
}

TEST(SseParser, GivesTheSameEventsWhereverTheBytesAreCut) {
  for (const std::string end : {"\n", "\r\n", "\r"}) {
    const std::string stream = "\xEF\xBB\xBF" + std::string("data: {\"a\": 1}") + end + end + ": a comment" + end +
                               "event: ping" + end + "id: 3" + end + end + "data:one" + end + "data: two" + end +
                               "data" + end + end + "data:data: x" + end + "datum: y" + end + end + "data: [DONE]" +
                               end + end + "data: never ended";
    for (size_t size = 1; size <= stream.size(); ++size) {
      EXPECT_THAT(Events(stream, size), ElementsAre("{\"a\": 1}", "one\ntwo\n", "data: x", "[DONE]"))
          << "pieces of " << size;
    }
  }
}

TEST(SseParser, AnEventWithoutDataIsNone) { EXPECT_THAT(Events("\n\nevent: x\n\n:\n\ndata:\n\n", 3), ElementsAre("")); }

TEST(SseParser, RefusesALineThatNeverEnds) {
  SseParser parser;
  const std::string piece(1 << 20, 'x');
  bool fits = true;
  for (int i = 0; i < 64 && fits; ++i) {
    fits = parser.Feed(piece, [](absl::string_view) {});
  }
  EXPECT_FALSE(fits);
}

}  // namespace
}  // namespace quire::client
