// PendingResponses: deltas are put together, order and tokens stay.

#include "server/pending_responses.h"

#include <gtest/gtest.h>

namespace quire {
namespace {

v1::GenerateResponse Delta(uint32_t index, const char* text, uint32_t id) {
  v1::GenerateResponse response;
  response.mutable_delta()->set_index(index);
  response.mutable_delta()->set_text(text);
  response.mutable_delta()->add_token_ids(id);
  response.mutable_delta()->add_logprobs()->set_token_id(id);
  return response;
}

v1::GenerateResponse Finished() {
  v1::GenerateResponse response;
  response.mutable_finished();
  return response;
}

TEST(PendingResponsesTest, DeltasOfAnOutputJoin) {
  PendingResponses pending;
  pending.Push(Delta(0, "On", 1), 1);
  pending.Push(Delta(0, "ce", 2), 1);
  pending.Push(Finished(), 0);
  const PendingResponses::Entry first = pending.Take();
  EXPECT_EQ(first.response.delta().text(), "Once");
  EXPECT_EQ(first.response.delta().token_ids_size(), 2);
  EXPECT_EQ(first.response.delta().token_ids(1), 2u);
  EXPECT_EQ(first.response.delta().logprobs(1).token_id(), 2u);
  EXPECT_EQ(first.num_tokens, 2u);
  EXPECT_TRUE(pending.Take().response.has_finished());
  EXPECT_TRUE(pending.empty());
}

TEST(PendingResponsesTest, OutputsTakeTurnsAndEachJoinsItsOwn) {
  PendingResponses pending;
  for (const char* text : {"a", "b", "c"}) {
    for (uint32_t index : {0, 1, 2}) pending.Push(Delta(index, text, index), 1);
  }
  EXPECT_EQ(pending.num_tokens(), 9u);
  for (uint32_t index : {0, 1, 2}) {
    const PendingResponses::Entry entry = pending.Take();
    EXPECT_EQ(entry.response.delta().index(), index);
    EXPECT_EQ(entry.response.delta().text(), "abc");
  }
  EXPECT_EQ(pending.num_tokens(), 0u);
}

TEST(PendingResponsesTest, NothingJoinsAcrossEvents) {
  PendingResponses pending;
  pending.Push(Delta(0, "a", 1), 1);
  pending.Push(Delta(1, "b", 2), 1);
  pending.Push(Finished(), 0);
  pending.Push(Delta(1, "c", 3), 1);
  for (const char* text : {"a", "b", "", "c"}) EXPECT_EQ(pending.Take().response.delta().text(), text);
}

TEST(PendingResponsesTest, ADeltaHasABound) {
  PendingResponses pending;
  for (uint32_t i = 0; i < 3 * PendingResponses::kMaxTokensPerDelta; ++i) pending.Push(Delta(0, "x", i), 1);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(pending.Take().num_tokens, PendingResponses::kMaxTokensPerDelta);
  EXPECT_TRUE(pending.empty());
}

TEST(PendingResponsesTest, ClearSaysHowManyTokensAreLost) {
  PendingResponses pending;
  pending.Push(Delta(0, "a", 1), 1);
  pending.Push(Delta(0, "b", 2), 2);
  pending.Push(Finished(), 1);
  EXPECT_EQ(pending.Clear(), 4u);
  EXPECT_TRUE(pending.empty());
}

}  // namespace
}  // namespace quire
