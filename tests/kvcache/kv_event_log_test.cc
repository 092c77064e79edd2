// KvEventLog: what the engine thread notes is taken in order, and memory is bounded.

#include "kvcache/kv_event_log.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "kvcache/block_pool.h"

namespace quire {
namespace {

BlockHash Name(uint8_t number) { return {number}; }

TEST(KvEventLog, HandsOverInOrderWhatWasFlushed) {
  KvEventLog log(10);
  const std::vector<uint32_t> tokens = {1, 2, 3, 4};
  const BlockHash parent = Name(7);
  log.Stored(Name(7), nullptr, absl::MakeConstSpan(tokens).first(2));
  log.Stored(Name(8), &parent, absl::MakeConstSpan(tokens).last(2));
  log.Flush();
  log.Removed(Name(7));
  log.Flush();
  KvEventBatch batch;
  ASSERT_TRUE(log.Take(batch));
  ASSERT_EQ(batch.events.size(), 3u);
  EXPECT_EQ(batch.events[0].kind, KvEventKind::kStored);
  EXPECT_EQ(batch.events[0].block, 7);
  EXPECT_FALSE(batch.events[0].parent);
  EXPECT_EQ(batch.events[1].parent, 7);
  EXPECT_EQ(batch.events[2].kind, KvEventKind::kRemoved);
  EXPECT_EQ(batch.tokens, tokens);
}

TEST(KvEventLog, AReaderThatDoesNotTakeFindsItClearedAndNoLonger) {
  KvEventLog log(10);
  for (uint8_t i = 0; i < 25; ++i) {
    log.Removed(Name(i));
    log.Flush();
  }
  KvEventBatch batch;
  ASSERT_TRUE(log.Take(batch));
  ASSERT_EQ(batch.events.size(), 5u);  // it was full at 10 and at 20
  EXPECT_EQ(batch.events[0].kind, KvEventKind::kCleared);
  EXPECT_EQ(batch.events[1].block, 21);
}

TEST(KvEventLog, CloseWakesTheReader) {
  KvEventLog log(10);
  std::thread reader([&log] {
    KvEventBatch batch;
    EXPECT_FALSE(log.Take(batch));
  });
  log.Close();
  reader.join();
}

TEST(KvEventLog, APoolTellsOfTheNamesThatItForgets) {
  KvEventLog log(10);
  BlockPool pool(2);
  pool.Tell(&log);
  const BlockId first = *pool.Allocate(), second = *pool.Allocate();
  pool.Publish(first, Name(1));
  pool.Publish(second, Name(2));
  pool.Release(first);
  pool.Release(second);
  EXPECT_EQ(pool.Allocate(), first);  // the oldest is reclaimed
  pool.Unpublish(second);
  pool.Unpublish(second);  // not there any more
  log.Flush();
  KvEventBatch batch;
  ASSERT_TRUE(log.Take(batch));
  ASSERT_EQ(batch.events.size(), 2u);
  EXPECT_EQ(batch.events[0].block, 1);
  EXPECT_EQ(batch.events[1].block, 2);
}

}  // namespace
}  // namespace quire
