// What a fault does to a whole daemon, in this process, on the bundled model: each fail point of kernels/fail_point.h
// from the flag to the wire.

#include "tests/fail_points.h"

#include <gmock/gmock.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <future>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/server/step_gate.h"
#include "tests/server/test_daemon.h"

namespace quire {
namespace {

using ::testing::Each;
using ::testing::StartsWith;

constexpr absl::Duration kTimeout = absl::Milliseconds(400);  // of writes and steps

// grpc.health.v1.Health/Watch: its first word, and the next.
class HealthWatch {
 public:
  explicit HealthWatch(const std::shared_ptr<grpc::Channel>& channel) : stub_(channel) {
    call_ = stub_.PrepareCall(&context_, "/grpc.health.v1.Health/Watch", &queue_);
    call_->StartCall(nullptr);
    Await();
    const grpc::Slice nothing("", 0);
    call_->WriteLast(grpc::ByteBuffer(&nothing, 1), grpc::WriteOptions(), nullptr);
    Await();
  }
  ~HealthWatch() {
    context_.TryCancel();
    grpc::Status status;
    call_->Finish(&status, nullptr);
    Await();
  }

  // The next ServingStatus: 1 SERVING, 2 NOT_SERVING.
  int Next() {
    grpc::ByteBuffer message;
    call_->Read(&message, nullptr);
    if (!Await()) return -1;
    grpc::Slice bytes;  // field 1, varint
    return message.DumpToSingleSlice(&bytes).ok() && bytes.size() == 2 ? bytes.begin()[1] : -1;
  }

 private:
  bool Await() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  grpc::GenericStub stub_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

class FailPointsTest : public testing::Test {
 protected:
  static Options SmallOptions() {
    Options options = TestDaemon::SmallOptions();
    options.max_unsent_tokens = 32;
    options.write_timeout = kTimeout;
    options.step_timeout = kTimeout;
    return options;
  }

  Answer Generate(const v1::GenerateRequest& request) const { return daemon_.Generate(request); }
  std::future<Answer> Begin(const v1::GenerateRequest& request) const {
    return std::async(std::launch::async, [this, request] { return Generate(request); });
  }
  std::string Get(const std::string& path) const { return daemon_.Get(path); }
  double Metric(const std::string& series) const { return daemon_.Metric(series); }
  double Ended(const std::string& how) const { return daemon_.Ended(how); }

  // Begins them all before the first step of any is computed. Until then kSlowStep is `gate`'s.
  std::vector<std::future<Answer>> BeginTogether(const std::vector<v1::GenerateRequest>& requests,
                                                 StepGate& gate) const {
    gate.Close();
    std::vector<std::future<Answer>> calls;
    for (const v1::GenerateRequest& request : requests) calls.push_back(Begin(request));
    Await("all have come", [&] {
      const double num_live = Metric("vllm:num_requests_running") + Metric("vllm:num_requests_waiting");
      return num_live >= static_cast<double>(requests.size());
    });
    gate.Open();
    return calls;
  }

  TestDaemon daemon_{SmallOptions()};
};

std::vector<v1::GenerateRequest> Requests(int count, uint32_t max_tokens) {
  std::vector<v1::GenerateRequest> requests;
  for (int i = 0; i < count; ++i) {
    requests.push_back(GreedyRequest(
        absl::StrCat("The ", i,
                     " brothers went out into the wide world to seek their fortune, and the youngest said: "),
        max_tokens));
  }
  return requests;
}

TEST_F(FailPointsTest, BlocksThatCannotBeHadMakeRequestsWaitAndChangeNoToken) {
  const std::vector<v1::GenerateRequest> requests = Requests(8, 60);
  std::vector<Answer> want;
  for (const v1::GenerateRequest& request : requests) want.push_back(Generate(request));

  std::atomic<int> num_asked{0};
  const ScopedFailPoint fails(FailPoint::kBlockAllocation, [&] { return ++num_asked % 3 != 0; });
  StepGate gate;
  const ScopedFailPoint step(FailPoint::kSlowStep, [&] { return gate.Pass(); });
  std::vector<std::future<Answer>> got = BeginTogether(requests, gate);
  for (size_t i = 0; i < got.size(); ++i) {
    const Answer answer = got[i].get();
    EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_EQ(answer.ids, want[i].ids);
  }
  EXPECT_GT(Metric("vllm:num_preemptions_total"), 0);
  EXPECT_GT(num_asked, 8);
  daemon_.ExpectAllIsWell();
}

TEST_F(FailPointsTest, ARunnerErrorEndsEveryRequestOnceAndTheProcessWithTwo) {
  std::future<int> exit_code = std::async(std::launch::async, [this] { return daemon_.daemon().Run(); });
  HealthWatch health(daemon_.channel());
  EXPECT_EQ(health.Next(), 1);
  std::atomic<int> num_steps{0};
  const ScopedFailPoint fails(FailPoint::kRunnerError, [&] { return ++num_steps > 30; });
  std::vector<std::future<Answer>> calls;
  for (const v1::GenerateRequest& request : Requests(4, 400)) calls.push_back(Begin(request));
  for (std::future<Answer>& call : calls) {
    const Answer answer = call.get();
    EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::UNAVAILABLE) << answer.status.error_message();
    EXPECT_LT(answer.ids.size(), 400u);
  }
  EXPECT_EQ(health.Next(), 2);
  EXPECT_EQ(exit_code.get(), 2);
}

TEST_F(FailPointsTest, AStepThatHangsShowsInLivezUntilItIsOver) {
  EXPECT_THAT(Get("/livez"), StartsWith("HTTP/1.1 200"));
  StepGate gate;
  gate.Close();
  const ScopedFailPoint slow(FailPoint::kSlowStep, [&] { return gate.Pass(); });
  std::future<Answer> call = Begin(GreedyRequest("The king said", 4));
  gate.AwaitStep();
  const absl::Time begin = absl::Now();
  Await("the step hangs", [this] { return !absl::StartsWith(Get("/livez"), "HTTP/1.1 200"); });
  EXPECT_GE(absl::Now() - begin, kTimeout * 0.9) << "a step may take its time";
  EXPECT_THAT(Get("/readyz"), StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(Metric("vllm:num_requests_running"), 1) << "metrics wait for no step";

  v1::GenerateRequest hurried = GreedyRequest("The queen said", 4);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  const auto reader = daemon_.stub().Generate(&context, hurried);
  v1::GenerateResponse response;
  EXPECT_FALSE(reader->Read(&response)) << "what waits behind it is never computed";
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);

  gate.Open();
  EXPECT_EQ(call.get().ids.size(), 4u);
  EXPECT_THAT(Get("/livez"), StartsWith("HTTP/1.1 200"));
  // It has expired, or been cancelled if its client's clock ran out well before ours.
  Await("the hurried one is over", [this] { return Ended("expired") + Ended("cancelled") == 1; });
  daemon_.ExpectAllIsWell();
}

TEST_F(FailPointsTest, ANaNRowEndsItsRequestAndItsBlocksLeaveTheCache) {
  const std::vector<v1::GenerateRequest> requests = Requests(3, 100);
  std::vector<Answer> want;
  for (const v1::GenerateRequest& request : requests) want.push_back(Generate(request));
  EXPECT_GT(Generate(requests[1]).finished.usage().cached_tokens(), 0u);

  // All three decode: the second row of a step is spoilt, once.
  int row = 0, num_rows = 0, num_spoilt = 0;  // the engine thread's, while the requests run
  std::vector<Answer> got;
  {
    StepGate gate;
    const ScopedFailPoint step(FailPoint::kSlowStep, [&] {
      num_rows = std::exchange(row, 0);
      return gate.Pass();
    });
    const ScopedFailPoint spoil(FailPoint::kNaNRow, [&] {
      const bool spoils = row++ == 1 && num_rows == 3 && num_spoilt == 0;
      num_spoilt += spoils ? 1 : 0;
      return spoils;
    });
    for (std::future<Answer>& call : BeginTogether(requests, gate)) got.push_back(call.get());
  }
  ASSERT_EQ(num_spoilt, 1);
  size_t victim = 3;
  for (size_t i = 0; i < 3; ++i) {
    if (got[i].status.ok()) {
      EXPECT_EQ(got[i].ids, want[i].ids) << "the others answer as if nothing had been";
    } else {
      EXPECT_EQ(victim, 3u) << "one alone fails";
      victim = i;
    }
  }
  ASSERT_LT(victim, 3u);
  EXPECT_EQ(got[victim].status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_LT(got[victim].ids.size(), 100u);
  EXPECT_EQ(Ended("failed"), 1);

  const Answer again = Generate(requests[victim]);
  EXPECT_EQ(again.finished.usage().cached_tokens(), 0u);
  EXPECT_EQ(again.ids, want[victim].ids);
  daemon_.ExpectAllIsWell();
}

TEST_F(FailPointsTest, AWriteThatStallsPausesItsRequestAndEndsItCancelledAndNobodyElse) {
  const std::vector<v1::GenerateRequest> requests = Requests(4, 60);
  std::vector<Answer> want;
  for (const v1::GenerateRequest& request : requests) want.push_back(Generate(request));

  const double num_pauses = Metric("quire_stream_pauses_total");  // on a busy machine those before may have had some
  std::atomic<bool> stalls{true};
  const ScopedFailPoint stall(FailPoint::kWriteStall, [&] { return stalls.exchange(false); });
  std::future<Answer> slow = Begin(GreedyRequest("Long ago", 1000));
  Await("it pauses", [&] { return Metric("quire_stream_pauses_total") > num_pauses; });
  Await("it holds no block", [this] { return Metric("quire_kv_blocks{state=\"held\"}") == 0; });
  for (size_t i = 0; i < requests.size(); ++i) {
    const Answer answer = Generate(requests[i]);
    EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_EQ(answer.ids, want[i].ids);
  }
  const Answer cut = slow.get();
  EXPECT_EQ(cut.status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(Metric("quire_stream_stalls_total"), 1);
  Await("it is over", [this] { return Ended("cancelled") == 1; });
  daemon_.ExpectAllIsWell();
}

// One of three streams is not read: which, chance says. What the others get after that is known by counting, not by
// time.
TEST(WriteStallTest, TheOthersTokensFlowWhileOneWriteStalls) {
  constexpr uint32_t kNumTokens = 100;
  Options options = TestDaemon::SmallOptions();
  options.max_unsent_tokens = 32;
  options.write_timeout = absl::Hours(1);
  TestDaemon daemon(options);
  StepGate gate;
  std::atomic<int> num_steps{0};
  const ScopedFailPoint step(FailPoint::kSlowStep, [&] {
    if (++num_steps == 20) gate.Close();
    return gate.Pass();
  });
  std::atomic<bool> stalls{false};
  const ScopedFailPoint stall(FailPoint::kWriteStall, [&] { return stalls.exchange(false); });

  struct Stream {
    grpc::ClientContext context;
    std::atomic<uint32_t> num_tokens{0};
    std::atomic<bool> ended{false};
    grpc::Status status;  // once ended
    std::thread reader;
  };
  std::vector<Stream> streams(3);
  for (Stream& stream : streams) {
    stream.reader = std::thread([&daemon, &stream] {
      const auto reader = daemon.stub().Generate(&stream.context, GreedyRequest("Long ago", kNumTokens));
      for (v1::GenerateResponse response; reader->Read(&response);) {
        stream.num_tokens += static_cast<uint32_t>(response.delta().token_ids_size());
      }
      stream.status = reader->Finish();
      stream.ended = true;
    });
  }
  gate.AwaitStep();
  stalls = true;  // the next write, of whatever it is
  gate.Open();
  const auto num_ended = [&] {
    return std::count_if(streams.begin(), streams.end(), [](const Stream& stream) { return stream.ended.load(); });
  };
  Await("two of three have ended", [&] { return num_ended() == 2; });
  EXPECT_FALSE(stalls) << "a write has stalled before the first of the tokens since";
  for (Stream& stream : streams) {
    if (stream.ended) {
      EXPECT_TRUE(stream.status.ok()) << stream.status.error_message();
      EXPECT_EQ(stream.num_tokens, kNumTokens);
    } else {
      EXPECT_LT(stream.num_tokens, 20u) << "what was written before";
      stream.context.TryCancel();
    }
  }
  EXPECT_GE(daemon.Metric("quire_stream_pauses_total"), 1) << "it was paused, and held nobody up";
  EXPECT_EQ(daemon.Metric("quire_stream_stalls_total"), 0) << "no deadline had to end it";
  for (Stream& stream : streams) stream.reader.join();
  Await("it is over", [&] { return daemon.Ended("cancelled") == 1; });
  daemon.ExpectAllIsWell();
}

TEST(FailPointsOfTheProductTest, ItHasNone) {
  const auto bytes = [](const char* path) {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  constexpr char kAsks[] = "FailPointIsReached";
  EXPECT_TRUE(absl::StrContains(bytes("/proc/self/exe"), kAsks)) << "here they are";
  const std::string quired = bytes(QUIRED_PATH);
  EXPECT_TRUE(absl::StrContains(quired, "BackendModelRunner")) << "its symbols can be read";
  EXPECT_FALSE(absl::StrContains(quired, kAsks));
}

}  // namespace
}  // namespace quire
