// TokenizerPool: runs every job that it takes, refuses beyond its bounds.

#include "server/tokenizer_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace quire {
namespace {

TEST(TokenizerPoolTest, ShutdownRunsWhatWaits) {
  TokenizerPool pool({.num_threads = 2, .max_jobs = 1000, .max_bytes = 1000});
  std::atomic<int> ran{0};
  for (int i = 0; i < 500; ++i) ASSERT_TRUE(pool.Submit(1, [&ran] { ++ran; }).ok());
  pool.Shutdown();
  EXPECT_EQ(ran, 500);
  EXPECT_EQ(pool.Submit(1, [] {}).code(), absl::StatusCode::kUnavailable);
}

TEST(TokenizerPoolTest, AFullPoolRefusesAtOnceWithARetryDelay) {
  std::promise<void> begun, go;  // outlive the pool, whose worker uses them to its end
  TokenizerPool pool({.num_threads = 1, .max_jobs = 2, .max_bytes = 100});
  ASSERT_TRUE(pool.Submit(1,
                          [&] {
                            begun.set_value();
                            go.get_future().wait();
                          })
                  .ok());
  begun.get_future().wait();  // the worker is busy: what follows waits
  ASSERT_TRUE(pool.Submit(60, [] {}).ok());
  const absl::Status too_many_bytes = pool.Submit(60, [] {});
  ASSERT_TRUE(pool.Submit(40, [] {}).ok());
  const absl::Status too_many_jobs = pool.Submit(0, [] {});
  go.set_value();
  for (const absl::Status& status : {too_many_bytes, too_many_jobs}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_TRUE(status.GetPayload("type.googleapis.com/google.rpc.RetryInfo").has_value());
  }
}

TEST(TokenizerPoolTest, AJobLargerThanTheBoundIsTakenAlone) {
  TokenizerPool pool({.num_threads = 1, .max_jobs = 2, .max_bytes = 10});
  std::atomic<bool> ran{false};
  EXPECT_TRUE(pool.Submit(1000, [&ran] { ran = true; }).ok());
  pool.Shutdown();
  EXPECT_TRUE(ran);
}

}  // namespace
}  // namespace quire
