// What a fault does to a whole daemon, in this process, on the bundled model: each fail point of kernels/fail_point.h
// from the flag to the wire.

#include "tests/fail_points.h"

#include <gmock/gmock.h>
#include <google/protobuf/repeated_field.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <fstream>
#include <future>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "quire/v1/generation.grpc.pb.h"
#include "server/daemon.h"
#include "server/shutdown_signal.h"
#include "tests/server/http_get.h"

namespace quire {
namespace {

using ::testing::Each;
using ::testing::StartsWith;

constexpr absl::Duration kTimeout = absl::Milliseconds(400);  // of writes and steps

// What a Generate call brought.
struct Answer {
  grpc::Status status;
  std::vector<uint32_t> ids;
  v1::Finished finished;
};

v1::GenerateRequest Request(const std::string& text, uint32_t max_tokens) {
  v1::GenerateRequest request;
  request.set_text(text);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(max_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  return request;
}

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

// Holds the steps of an engine, once it is closed.
class Gate {
 public:
  bool Pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    held_ = closed_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !closed_; });
    return false;
  }
  void Close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
  }
  void AwaitStep() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return held_; });
  }
  void Open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = false;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false, held_ = false;
};

class FailPointsTest : public testing::Test {
 protected:
  FailPointsTest() {
    Options options;
    options.engine.model = MODEL_PATH;
    options.engine.backend.num_threads = 1;
    options.engine.kv_cache_bytes = 16 << 20;
    options.listen.port = 0;
    options.admin_listen.port = 0;
    options.max_unsent_tokens = 32;
    options.write_timeout = kTimeout;
    options.step_timeout = kTimeout;
    auto daemon = Daemon::Start(options, signal_);
    if (!daemon.ok()) {
      ADD_FAILURE() << daemon.status();
      std::abort();
    }
    daemon_ = *std::move(daemon);
    for (absl::string_view part : absl::StrSplit(daemon_->ReadyLine(), ' ')) {
      if (absl::ConsumePrefix(&part, "grpc=")) target_ = std::string(part);
      if (absl::ConsumePrefix(&part, "admin=127.0.0.1:"))
        admin_port_ = static_cast<uint16_t>(std::stoi(std::string(part)));
    }
    channel_ = grpc::CreateChannel(target_, grpc::InsecureChannelCredentials());
    stub_ = v1::GenerationService::NewStub(channel_);
  }

  Answer Generate(const v1::GenerateRequest& request) const {
    Answer answer;
    grpc::ClientContext context;
    const auto reader = stub_->Generate(&context, request);
    for (v1::GenerateResponse response; reader->Read(&response);) {
      const auto& ids = response.delta().token_ids();
      answer.ids.insert(answer.ids.end(), ids.begin(), ids.end());
      if (response.has_finished()) answer.finished = response.finished();
    }
    answer.status = reader->Finish();
    return answer;
  }
  std::future<Answer> Begin(const v1::GenerateRequest& request) const {
    return std::async(std::launch::async, [this, request] { return Generate(request); });
  }

  std::string Get(const std::string& path) const { return HttpGet(admin_port_, path); }
  double Metric(const std::string& series) const { return SeriesIn(Get("/metrics"), series); }
  double Ended(const std::string& how) const { return Metric("quire_requests_total{ending=\"" + how + "\"}"); }

  // Polls until it holds; fails after a minute.
  template <typename Condition>
  static void Await(const char* what, const Condition& holds) {
    for (const absl::Time give_up = absl::Now() + absl::Minutes(1); !holds();) {
      if (absl::Now() > give_up) {
        ADD_FAILURE() << "never: " << what;
        return;
      }
    }
  }

  // Begins them all before the first step of any is computed. Until then kSlowStep is `gate`'s.
  std::vector<std::future<Answer>> BeginTogether(const std::vector<v1::GenerateRequest>& requests, Gate& gate) const {
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

  // Once nothing runs: no block is held, and both books balance.
  void ExpectAllIsWell() const {
    Await("no block is held", [this] { return Metric("quire_kv_blocks{state=\"held\"}") == 0; });
    double endings = 0;
    for (const char* how : {"finished", "cancelled", "expired", "rejected", "failed"}) endings += Ended(how);
    EXPECT_EQ(endings, Metric("quire_requests_received_total"));
    EXPECT_EQ(Metric("quire_tokens_computed_total"), Metric("quire_tokens_delivered_total") +
                                                         Metric("quire_tokens_recomputed_total") +
                                                         Metric("quire_tokens_discarded_total"));
  }

  ShutdownSignal signal_;  // before all threads
  std::unique_ptr<Daemon> daemon_;
  std::string target_;
  uint16_t admin_port_ = 0;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::GenerationService::Stub> stub_;
};

std::vector<v1::GenerateRequest> Requests(int count, uint32_t max_tokens) {
  std::vector<v1::GenerateRequest> requests;
  for (int i = 0; i < count; ++i) {
    requests.push_back(
        Request(absl::StrCat("The ", i,
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
  Gate gate;
  const ScopedFailPoint step(FailPoint::kSlowStep, [&] { return gate.Pass(); });
  std::vector<std::future<Answer>> got = BeginTogether(requests, gate);
  for (size_t i = 0; i < got.size(); ++i) {
    const Answer answer = got[i].get();
    EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_EQ(answer.ids, want[i].ids);
  }
  EXPECT_GT(Metric("vllm:num_preemptions_total"), 0);
  EXPECT_GT(num_asked, 8);
  ExpectAllIsWell();
}

TEST_F(FailPointsTest, ARunnerErrorEndsEveryRequestOnceAndTheProcessWithTwo) {
  std::future<int> exit_code = std::async(std::launch::async, [this] { return daemon_->Run(); });
  HealthWatch health(channel_);
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
  Gate gate;
  gate.Close();
  const ScopedFailPoint slow(FailPoint::kSlowStep, [&] { return gate.Pass(); });
  std::future<Answer> call = Begin(Request("The king said", 4));
  gate.AwaitStep();
  const absl::Time begin = absl::Now();
  Await("the step hangs", [this] { return !absl::StartsWith(Get("/livez"), "HTTP/1.1 200"); });
  EXPECT_GE(absl::Now() - begin, kTimeout * 0.9) << "a step may take its time";
  EXPECT_THAT(Get("/readyz"), StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(Metric("vllm:num_requests_running"), 1) << "metrics wait for no step";

  v1::GenerateRequest hurried = Request("The queen said", 4);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  const auto reader = stub_->Generate(&context, hurried);
  v1::GenerateResponse response;
  EXPECT_FALSE(reader->Read(&response)) << "what waits behind it is never computed";
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);

  gate.Open();
  EXPECT_EQ(call.get().ids.size(), 4u);
  EXPECT_THAT(Get("/livez"), StartsWith("HTTP/1.1 200"));
  // It has expired, or been cancelled if its client's clock ran out well before ours.
  Await("the hurried one is over", [this] { return Ended("expired") + Ended("cancelled") == 1; });
  ExpectAllIsWell();
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
    Gate gate;
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
  ExpectAllIsWell();
}

TEST_F(FailPointsTest, AWriteThatStallsPausesItsRequestAndEndsItCancelledAndNobodyElse) {
  const std::vector<v1::GenerateRequest> requests = Requests(4, 60);
  std::vector<Answer> want;
  for (const v1::GenerateRequest& request : requests) want.push_back(Generate(request));

  std::atomic<bool> stalls{true};
  const ScopedFailPoint stall(FailPoint::kWriteStall, [&] { return stalls.exchange(false); });
  std::future<Answer> slow = Begin(Request("Long ago", 1000));
  Await("it pauses", [this] { return Metric("quire_stream_pauses_total") == 1; });
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
  ExpectAllIsWell();
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
