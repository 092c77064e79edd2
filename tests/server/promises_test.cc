// What a client is promised, of a whole daemon: deadlines, seeds, timings.

#include <gmock/gmock.h>
#include <grpcpp/channel.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/fail_points.h"
#include "tests/server/step_gate.h"
#include "tests/server/test_daemon.h"

namespace quire {
namespace {

absl::Duration DurationOf(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

// The reason of an ErrorInfo; empty if there is none.
std::string ReasonOf(const grpc::Status& status) {
  google::rpc::Status rich;
  google::rpc::ErrorInfo info;
  const bool is_there = rich.ParseFromString(status.error_details()) && rich.details_size() == 1;
  return is_there && rich.details(0).UnpackTo(&info) ? info.reason() : "";
}

TEST(PromisesTest, TheSeedThatWasDrawnIsToldAndRepeatsTheAnswerAlsoAfterARestart) {
  v1::GenerateRequest request = GreedyRequest("Once upon a time", 40);
  request.mutable_sampling()->set_temperature(1);
  request.set_n(2);
  Answer first, second;
  {
    TestDaemon daemon(TestDaemon::SmallOptions());
    first = daemon.Generate(request);
    second = daemon.Generate(request);
    EXPECT_NE(first.accepted.seed(), second.accepted.seed());
    EXPECT_NE(first.ids, second.ids);
    request.mutable_sampling()->set_seed(first.accepted.seed());
    EXPECT_EQ(daemon.Generate(request).ids, first.ids);
  }
  TestDaemon restarted(TestDaemon::SmallOptions());
  EXPECT_EQ(restarted.Generate(request).ids, first.ids);
  request.mutable_sampling()->set_seed(second.accepted.seed());
  EXPECT_EQ(restarted.Generate(request).ids, second.ids);
}

TEST(PromisesTest, TheTimingsOfAnAnswerSumToItsWhole) {
  TestDaemon daemon(TestDaemon::SmallOptions());
  for (const uint32_t max_tokens : {1, 2, 30}) {
    const Answer answer = daemon.Generate(GreedyRequest("Once upon a time", max_tokens));
    const v1::Timings& timings = answer.finished.timings();
    EXPECT_GT(DurationOf(timings.prefill()), absl::ZeroDuration());
    EXPECT_EQ(DurationOf(timings.queued()) + DurationOf(timings.prefill()), DurationOf(timings.time_to_first_token()));
    EXPECT_EQ(DurationOf(timings.time_to_first_token()) + DurationOf(timings.decode()), DurationOf(timings.total()));
    EXPECT_EQ(answer.finished.usage().completion_tokens(), max_tokens);
    EXPECT_EQ(answer.accepted.max_tokens(), max_tokens);
  }
}

TEST(PromisesTest, WhatWasGeneratedBeforeTheDeadlineHasBeenDelivered) {
  Options options = TestDaemon::SmallOptions();
  options.default_timeout = absl::Seconds(1);
  TestDaemon daemon(options);
  StepGate gate;
  int num_steps = 0;
  const ScopedFailPoint step(FailPoint::kSlowStep, [&] {
    if (++num_steps == 6) gate.Close();
    return gate.Pass();
  });
  const absl::Time begin = absl::Now();
  std::future<Answer> call = std::async(std::launch::async, [&] { return daemon.Generate(GreedyRequest("A", 1000)); });
  gate.AwaitStep();
  // Its last step begins before the deadline and ends after it.
  Await("the deadline has passed", [&] { return absl::Now() > begin + absl::Milliseconds(1300); });
  gate.Open();
  const Answer answer = call.get();
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(answer.ids.size(), 6u);
  EXPECT_EQ(daemon.Ended("expired"), 1);
  daemon.ExpectAllIsWell();
}

TEST(PromisesTest, WhoWaitsLongerThanItsQueueTimeIsToldSoAndNeverRuns) {
  Options options = TestDaemon::SmallOptions();
  options.engine.max_num_seqs = 1;
  TestDaemon daemon(options);
  StepGate gate;
  gate.Close();
  const ScopedFailPoint step(FailPoint::kSlowStep, [&] { return gate.Pass(); });
  const auto begin = [&](const v1::GenerateRequest& request) {
    return std::async(std::launch::async, [&daemon, request] { return daemon.Generate(request); });
  };
  std::future<Answer> running = begin(GreedyRequest("The king", 50));
  gate.AwaitStep();
  v1::GenerateRequest request = GreedyRequest("The queen", 50);
  request.mutable_scheduling()->mutable_max_queue_time()->set_nanos(1'000'000);
  std::future<Answer> waiting = begin(request);
  Await("it waits", [&] { return daemon.Metric("vllm:num_requests_waiting") == 1; });
  const absl::Time since = absl::Now();
  Await("its time has passed", [&] { return absl::Now() > since + absl::Milliseconds(5); });
  gate.Open();
  const Answer answer = waiting.get();
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(ReasonOf(answer.status), "QUEUE_TIME_EXCEEDED");
  EXPECT_TRUE(answer.accepted.request_id().empty());
  EXPECT_EQ(running.get().ids.size(), 50u);
  daemon.ExpectAllIsWell();
}

TEST(PromisesTest, APromptThatCannotBeComputedInTimeIsRefusedAtOnceAndNeverTouchesTheDevice) {
  Options options = TestDaemon::SmallOptions();
  options.engine.max_num_batched_tokens = 16;
  TestDaemon daemon(options);
  std::atomic<int> num_steps{0};
  const ScopedFailPoint step(FailPoint::kSlowStep, [&] {
    ++num_steps;
    for (const absl::Time end = absl::Now() + absl::Milliseconds(30); absl::Now() < end;) continue;
    return false;
  });
  v1::GenerateRequest request = GreedyRequest("", 1);
  for (uint32_t i = 0; i < 900; ++i) request.mutable_tokens()->add_ids(i);
  v1::GenerateRequest known = request;
  known.mutable_tokens()->mutable_ids()->Truncate(96);
  known.mutable_cache()->set_bypass_prefix_cache(true);
  EXPECT_TRUE(daemon.Generate(known).status.ok());  // the rate is known from here on
  const int num_before = num_steps;

  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(1)));
  const auto reader = daemon.stub().Generate(&context, request);  // 57 steps, of 1.7 s
  v1::GenerateResponse response;
  EXPECT_FALSE(reader->Read(&response));
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(ReasonOf(status), "DEADLINE_UNREACHABLE");
  EXPECT_EQ(num_steps, num_before);
  EXPECT_EQ(daemon.Ended("rejected") + daemon.Ended("expired"), 1);
  daemon.ExpectAllIsWell();
}

TEST(PromisesTest, TheModelsSamplingDefaultsAreInEffectAndReported) {
  const std::filesystem::path model = ::testing::TempDir() + "/promises_test_" + std::to_string(getpid());
  std::filesystem::create_directory(model);
  for (const auto& entry : std::filesystem::directory_iterator(MODEL_PATH)) {
    if (entry.path().filename() == "generation_config.json") continue;
    std::filesystem::create_symlink(entry.path(), model / entry.path().filename());
  }
  std::ofstream(model / "generation_config.json")
      << R"({"do_sample": true, "temperature": 0.75, "top_k": 7, "top_p": 0.875, "repetition_penalty": 1.125})";
  v1::GenerateRequest request = GreedyRequest("Once upon a time", 30);
  request.mutable_sampling()->clear_temperature();
  request.mutable_sampling()->set_seed(5);
  Options options = TestDaemon::SmallOptions();
  options.engine.model = model;
  Answer answer;
  {
    TestDaemon daemon(options);
    answer = daemon.Generate(request);
    v1::GenerateRequest own = request;
    own.mutable_sampling()->set_top_k(0);
    EXPECT_EQ(daemon.Generate(own).accepted.sampling().top_k(), 0u) << "the request's value wins";
  }
  std::filesystem::remove_all(model);
  const v1::SamplingParams& effective = answer.accepted.sampling();
  EXPECT_EQ(effective.temperature(), 0.75f);
  EXPECT_EQ(effective.top_k(), 7u);
  EXPECT_EQ(effective.top_p(), 0.875f);
  EXPECT_EQ(effective.repetition_penalty(), 1.125f);
  EXPECT_TRUE(effective.has_min_p() && effective.has_frequency_penalty() && effective.has_presence_penalty());

  *request.mutable_sampling() = effective;
  TestDaemon plain(TestDaemon::SmallOptions());
  EXPECT_EQ(plain.Generate(request).ids, answer.ids) << "they are what it was drawn with";
}

// --max-connection-age tells the client to go (GOAWAY), so that a load balancer can spread its calls anew.
TEST(PromisesTest, AnOldConnectionTakesNoNewCallsAndItsStreamsFinish) {
  Options options = TestDaemon::SmallOptions();
  options.rpc_limits.max_connection_age = absl::Milliseconds(50);
  TestDaemon daemon(options);
  StepGate gate;
  gate.Close();
  const ScopedFailPoint step(FailPoint::kSlowStep, [&] { return gate.Pass(); });
  std::future<Answer> call =
      std::async(std::launch::async, [&] { return daemon.Generate(GreedyRequest("The king", 50)); });
  gate.AwaitStep();
  grpc::Channel& channel = *daemon.channel();
  EXPECT_TRUE(channel.WaitForStateChange(GRPC_CHANNEL_READY, absl::ToChronoTime(absl::Now() + absl::Minutes(1))));
  EXPECT_EQ(channel.GetState(/*try_to_connect=*/false), GRPC_CHANNEL_IDLE) << "it has no connection for new calls";
  EXPECT_EQ(daemon.Metric("vllm:num_requests_running"), 1) << "the stream is still there";

  v1::TokenizeRequest request;
  request.set_text("The queen");
  v1::TokenizeResponse response;
  grpc::ClientContext context;
  EXPECT_TRUE(daemon.stub().Tokenize(&context, request, &response).ok()) << "over a connection of its own";
  EXPECT_GT(response.ids_size(), 0);
  gate.Open();
  const Answer answer = call.get();
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.ids.size(), 50u);
  daemon.ExpectAllIsWell();
}

}  // namespace
}  // namespace quire
