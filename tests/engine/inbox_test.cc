// Who gets in, who waits, and what a client in front of a full queue is told.

#include "engine/inbox.h"

#include <memory>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace quire {
namespace {

std::shared_ptr<const Request> RequestOf(RequestId id, size_t prompt_len) {
  auto request = std::make_shared<Request>();
  request->id = id;
  request->prompt.resize(prompt_len);
  return request;
}

TEST(Inbox, RefusesBeyondItsLimitsAndTakesAgainWhenPlacesAreFree) {
  Inbox inbox(/*max_waiting_requests=*/2, /*max_waiting_tokens=*/100);
  EXPECT_TRUE(inbox.Submit(RequestOf(1, 40)).ok());
  EXPECT_EQ(inbox.Submit(RequestOf(2, 61)).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(inbox.Submit(RequestOf(3, 60)).ok());
  EXPECT_EQ(inbox.Submit(RequestOf(4, 0)).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(inbox.has_commands());
  EXPECT_EQ(inbox.num_waiting(), 2);

  std::vector<Command> commands;
  EXPECT_TRUE(inbox.Take(absl::InfinitePast(), commands));
  EXPECT_EQ(commands.size(), 2);
  EXPECT_EQ(inbox.num_waiting(), 2);  // taken, but not admitted
  EXPECT_FALSE(inbox.has_commands());
  inbox.OnLeft(1);
  EXPECT_EQ(inbox.num_waiting(), 1);
  EXPECT_TRUE(inbox.Submit(RequestOf(5, 100)).ok());  // the tokens that were taken are for the scheduler to judge
}

TEST(Inbox, TakesOneRequestHoweverLong) {
  Inbox inbox(2, 100);
  EXPECT_TRUE(inbox.Submit(RequestOf(1, 1000)).ok());
  EXPECT_EQ(inbox.Submit(RequestOf(2, 1)).code(), absl::StatusCode::kResourceExhausted);
}

TEST(Inbox, AlwaysTakesCommandsAndKeepsTheirOrder) {
  Inbox inbox(1, 100);
  EXPECT_TRUE(inbox.Submit(RequestOf(1, 1)).ok());
  inbox.Put({.kind = CommandKind::kCancel, .ending = Ending::kCancelled, .id = 1});
  EXPECT_FALSE(inbox.Submit(RequestOf(2, 1)).ok());
  inbox.Put({.kind = CommandKind::kEndAll, .ending = Ending::kShutdown});
  std::vector<Command> commands;
  ASSERT_TRUE(inbox.Take(absl::InfiniteFuture(), commands));
  ASSERT_EQ(commands.size(), 3);
  EXPECT_EQ(commands[0].kind, CommandKind::kAdd);
  EXPECT_EQ(commands[1].kind, CommandKind::kCancel);
  EXPECT_EQ(commands[2].kind, CommandKind::kEndAll);
}

TEST(Inbox, WakesAThreadThatWaitsForACommandOrForTheEnd) {
  Inbox inbox(1000, 1000);
  std::vector<RequestId> taken;
  std::thread engine([&] {
    std::vector<Command> commands;
    while (inbox.Take(absl::InfiniteFuture(), commands)) {
      for (const Command& command : commands) taken.push_back(command.request->id);
    }
    inbox.TakeRest(commands);
    for (const Command& command : commands) taken.push_back(command.request->id);
  });
  for (RequestId id = 0; id < 1000; ++id) EXPECT_TRUE(inbox.Submit(RequestOf(id, 0)).ok());
  inbox.Close(absl::UnavailableError("first"));
  inbox.Close(absl::UnavailableError("second"));
  engine.join();
  EXPECT_EQ(taken.size(), 1000);
  EXPECT_EQ(inbox.Submit(RequestOf(1001, 1)), absl::UnavailableError("first"));
}

TEST(Inbox, StopsWaitingAtTheDeadline) {
  Inbox inbox(1, 1);
  std::vector<Command> commands;
  EXPECT_TRUE(inbox.Take(absl::Now() + absl::Milliseconds(1), commands));
  EXPECT_TRUE(commands.empty());
}

}  // namespace
}  // namespace quire
