// SeenTokens against a map.

#include "scheduler/seen_tokens.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/scheduler/fake_runner.h"

namespace quire {
namespace {

TEST(SeenTokens, CountsTheOutputAndKnowsThePrompt) {
  TestRandom random(1);
  for (const int32_t num_ids : {1, 3, 100, 1 << 30}) {
    SeenTokens seen;
    EXPECT_TRUE(seen.counts().empty());
    seen.Reserve(300);
    std::vector<uint32_t> prompt(100);
    for (uint32_t& id : prompt) id = random.Between(0, num_ids - 1);
    std::map<uint32_t, uint32_t> expected;
    for (const uint32_t id : prompt) expected[id] += 0;
    seen.AddPrompt(prompt);
    const TokenCount* const data = seen.counts().data();
    for (int i = 0; i < 200; ++i) {
      const uint32_t id = random.Between(0, num_ids - 1);
      ++expected[id];
      seen.AddOutput(id);
    }
    EXPECT_EQ(seen.counts().data(), data) << "nothing moves once there is room";
    std::map<uint32_t, uint32_t> found;
    for (const TokenCount& token : seen.counts()) {
      EXPECT_TRUE(found.emplace(token.id, token.in_output).second) << "twice: " << token.id;
    }
    EXPECT_EQ(found, expected);
  }
}

}  // namespace
}  // namespace quire
