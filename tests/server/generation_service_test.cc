// The RPCs over a real gRPC connection, with an engine whose runner is a fake: its steps are let through one by one,
// and the token at position p is the letter 'a' + p % 26.

#include "server/generation_service.h"

#include <gmock/gmock.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "quire/v1/model.grpc.pb.h"
#include "server/rpc_message.h"
#include "tests/server/http_collector.h"
#include "tests/server/test_services.h"

namespace {

std::atomic<size_t> least_that_fails{std::numeric_limits<size_t>::max()};
std::atomic<std::thread::id> spared_thread;

bool MayAllocate(size_t bytes) {
  return bytes < least_that_fails.load(std::memory_order_relaxed) ||
         spared_thread.load(std::memory_order_relaxed) == std::this_thread::get_id();
}

}  // namespace

// All of this program's allocations by C++ code; gRPC's own are made by malloc.
[[gnu::noinline]] void* operator new(size_t bytes) {
  void* const memory = MayAllocate(bytes) ? std::malloc(bytes) : nullptr;
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  return MayAllocate(bytes) ? std::malloc(bytes) : nullptr;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace quire {
namespace {

using ::testing::HasSubstr;

// While it lives, an allocation of so many bytes or more fails, on every thread but its own: that is the client.
class FailLargeAllocations {
 public:
  explicit FailLargeAllocations(size_t bytes) {
    spared_thread = std::this_thread::get_id();
    least_that_fails = bytes;
  }
  ~FailLargeAllocations() { least_that_fails = std::numeric_limits<size_t>::max(); }
};

// Steps that the engine may still run.
class Gate {
 public:
  void Let(int steps) {
    const std::lock_guard<std::mutex> lock(mutex_);
    steps_ += steps;
    changed_.notify_all();
  }
  void Open() { Let(std::numeric_limits<int>::max() / 2); }
  void Pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return steps_ > 0; });
    --steps_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int steps_ = 0;
};

class FakeRunner final : public ModelRunner {
 public:
  explicit FakeRunner(Gate& gate) : gate_(gate) {}

  absl::Status Launch(const Batch& batch) override {
    gate_.Pass();
    result_.sampled.clear();
    result_.top.clear();
    for (const Chunk& chunk : batch.chunks) {
      if (chunk.samples) {
        result_.top.resize(result_.top.size() + chunk.sequence->request().num_logprobs.value_or(0), {65, -1.0f});
      }
      SampledToken token;
      token.id = 'a' + static_cast<uint32_t>(chunk.begin + chunk.count) % 26;
      result_.sampled.push_back(token);
    }
    return absl::OkStatus();
  }
  absl::StatusOr<const StepResult*> Collect() override { return &result_; }

 private:
  Gate& gate_;
  StepResult result_;
};

constexpr int kMaxModelLen = 4096;
constexpr int kMaxWaiting = 2;

SchedulerOptions TestSchedulerOptions() {
  SchedulerOptions options;
  options.block_size = 16;
  options.num_blocks = 1024;
  options.max_num_seqs = 2;
  options.max_model_len = kMaxModelLen;
  return options;
}

Metrics::Info TestInfo() {
  Metrics::Info info;
  info.model_name = "fake";
  info.num_blocks = 1024;
  info.max_model_len = kMaxModelLen;
  return info;
}

GenerationOptions TestOptions() {
  GenerationOptions options;
  options.limits.model_name = "fake";
  options.limits.vocab_size = 257;
  options.limits.max_model_len = kMaxModelLen;
  options.limits.max_text_bytes = 10000;
  options.limits.eos_ids = {kByteTokenizerEnd};
  options.max_unsent_tokens = 100;
  return options;
}

class GenerationServiceTest : public testing::Test {
 protected:
  // `change` makes of the setup of most tests its own.
  explicit GenerationServiceTest(const std::function<void(TestServicesSetup&)>& change = [](TestServicesSetup&) {})
      : services_(Setup(change)) {}

  TestServicesSetup Setup(const std::function<void(TestServicesSetup&)>& change) {
    TestServicesSetup setup;
    setup.scheduler = TestSchedulerOptions();
    setup.max_waiting = kMaxWaiting;
    setup.generation = TestOptions();
    setup.info = TestInfo();
    setup.runner = std::make_unique<FakeRunner>(gate_);
    change(setup);
    return setup;
  }

  ~GenerationServiceTest() override { gate_.Open(); }

  // One Generate call.
  struct Call {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader;
    std::string text;
    v1::Finished finished;
    int num_deltas = 0;

    // Reads one response; false at the end of the stream.
    bool Read(v1::GenerateResponse& response) {
      if (!reader->Read(&response)) return false;
      text += response.delta().text();
      num_deltas += response.has_delta();
      if (response.has_finished()) finished = response.finished();
      return true;
    }
    grpc::Status Finish() {
      v1::GenerateResponse response;
      while (Read(response)) continue;
      return reader->Finish();
    }
  };

  static v1::GenerateRequest Request(const std::string& text, uint32_t max_tokens) {
    v1::GenerateRequest request;
    request.set_text(text);
    request.mutable_stopping()->set_max_tokens(max_tokens);
    return request;
  }

  std::unique_ptr<Call> Begin(const v1::GenerateRequest& request, absl::Duration timeout = absl::InfiniteDuration()) {
    auto call = std::make_unique<Call>();
    if (timeout != absl::InfiniteDuration()) call->context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    call->reader = stub_->Generate(&call->context, request);
    return call;
  }

  // Begins a call and waits until it is accepted: at once if the engine is idle, else after the step under way.
  std::unique_ptr<Call> BeginAccepted(const v1::GenerateRequest& request) {
    const int running = engine_.snapshot().scheduler.num_running;
    std::unique_ptr<Call> call = Begin(request);
    while (engine_.num_waiting() == 0 && engine_.snapshot().scheduler.num_running == running) continue;
    if (running > 0) gate_.Let(1);
    v1::GenerateResponse response;
    EXPECT_TRUE(call->Read(response) && response.has_accepted());
    return call;
  }

  // Lets steps through until a request has ended so, and its blocks are free. Each step waits for an answer on the same
  // connection, so that what the client did before has reached the server long before the request could run to its end.
  void AwaitEnding(const std::string& ending) {
    const std::string series = "quire_requests_total{ending=\"" + ending + "\"}";
    while (Metric(series) == 0 || engine_.snapshot().scheduler.blocks_held != 0) {
      v1::TokenizeResponse response;
      grpc::ClientContext context;
      EXPECT_TRUE(stub_->Tokenize(&context, v1::TokenizeRequest(), &response).ok());
      gate_.Let(1);
    }
  }

  // A long answer of much more bytes than gRPC takes for a client that does not read.
  static v1::GenerateRequest LargeRequest() {
    v1::GenerateRequest request = Request("xyz", 4000);
    request.mutable_output()->set_logprobs(20);
    return request;
  }

  // Lets steps through, each after the server has answered on the connection, until a request has been paused.
  void AwaitPause() {
    while (engine_.snapshot().scheduler.pauses == 0) {
      v1::TokenizeResponse response;
      grpc::ClientContext context;
      EXPECT_TRUE(stub_->Tokenize(&context, v1::TokenizeRequest(), &response).ok());
      gate_.Let(1);
      ASSERT_EQ(Metric("quire_requests_total{ending=\"finished\"}"), 0) << "it was never paused";
    }
  }

  double Metric(const std::string& series) const {
    const std::string page = metrics_.Text(engine_.snapshot());
    const size_t at = page.find("\n" + series + " ");
    EXPECT_NE(at, std::string::npos) << series;
    return std::stod(page.substr(at + 1 + series.size()));
  }

  // Received requests are the sum of their endings, and none is under way.
  void ExpectBooksBalance() {
    double endings = 0;
    for (const char* ending : {"finished", "cancelled", "expired", "rejected", "failed"}) {
      endings += Metric("quire_requests_total{ending=\"" + std::string(ending) + "\"}");
    }
    EXPECT_EQ(endings, Metric("quire_requests_received_total"));
    EXPECT_EQ(Metric("quire_tokens_computed_total"), Metric("quire_tokens_delivered_total") +
                                                         Metric("quire_tokens_recomputed_total") +
                                                         Metric("quire_tokens_discarded_total"));
  }

  Gate gate_;
  TestServices services_;
  Metrics& metrics_ = services_.metrics;
  Engine& engine_ = services_.engine;
  LiveRequests& live_ = services_.live;
  const std::shared_ptr<grpc::Channel> channel_ = services_.channel;
  const std::unique_ptr<v1::GenerationService::Stub> stub_ = v1::GenerationService::NewStub(channel_);
};

template <typename Detail>
Detail DetailOf(const grpc::Status& status) {
  google::rpc::Status rich;
  Detail detail;
  EXPECT_TRUE(rich.ParseFromString(status.error_details()));
  EXPECT_TRUE(rich.details_size() == 1 && rich.details(0).UnpackTo(&detail)) << status.error_message();
  return detail;
}

TEST_F(GenerationServiceTest, StreamsTheTextOfTheTokens) {
  gate_.Open();
  const auto call = Begin(Request("xyz", 5));
  EXPECT_TRUE(call->Finish().ok());
  EXPECT_EQ(call->text, "defgh");
  EXPECT_EQ(call->finished.usage().completion_tokens(), 5u);
  ExpectBooksBalance();
}

TEST_F(GenerationServiceTest, ACancelledCallFreesItsBlocks) {
  const auto call = BeginAccepted(Request("xyz", 4000));
  call->context.TryCancel();
  EXPECT_EQ(call->Finish().error_code(), grpc::StatusCode::CANCELLED);
  AwaitEnding("cancelled");
  ExpectBooksBalance();
}

TEST_F(GenerationServiceTest, ACallsDeadlineIsTheRequests) {
  const auto call = Begin(Request("xyz", 4000), absl::Milliseconds(100));  // its first step does not end before it
  EXPECT_EQ(call->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  AwaitEnding("expired");
  ExpectBooksBalance();
}

TEST_F(GenerationServiceTest, ANameIsTakenUntilItsCallEnds) {
  v1::GenerateRequest request = Request("xyz", 4000);
  request.set_request_id("twice");
  const auto call = BeginAccepted(request);
  EXPECT_EQ(Begin(request)->Finish().error_code(), grpc::StatusCode::ALREADY_EXISTS);

  v1::CancelRequest cancel;
  cancel.add_request_ids("twice");
  cancel.add_request_ids("nobody");
  v1::CancelResponse response;
  grpc::ClientContext context;
  EXPECT_TRUE(stub_->Cancel(&context, cancel, &response).ok());
  gate_.Open();
  EXPECT_EQ(call->Finish().error_code(), grpc::StatusCode::CANCELLED);

  request.mutable_stopping()->set_max_tokens(2);
  EXPECT_TRUE(Begin(request)->Finish().ok());
  ExpectBooksBalance();
}

TEST_F(GenerationServiceTest, ACancelOfTooManyNamesIsRefused) {
  v1::CancelRequest cancel;
  for (int i = 0; i < 16384; ++i) cancel.add_request_ids("nobody");
  v1::CancelResponse response;
  grpc::ClientContext context;
  EXPECT_TRUE(stub_->Cancel(&context, cancel, &response).ok());
  cancel.add_request_ids("one more");
  grpc::ClientContext again;
  const grpc::Status status = stub_->Cancel(&again, cancel, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "request_ids: has 16385 ids; allowed: at most 16384");
}

// Where no credential says whose a call is, its tenant is the one that it names; a Cancel names none.
TEST_F(GenerationServiceTest, EachTenantHasRequestIdsOfItsOwn) {
  v1::GenerateRequest red = Request("xyz", 4000);
  red.set_request_id("same");
  red.mutable_scheduling()->set_tenant("red");
  v1::GenerateRequest blue = red;
  blue.mutable_scheduling()->set_tenant("blue");
  const auto first = BeginAccepted(red);
  const auto second = BeginAccepted(blue);
  EXPECT_EQ(Begin(blue)->Finish().error_code(), grpc::StatusCode::ALREADY_EXISTS);

  v1::CancelRequest cancel;
  cancel.add_request_ids("same");
  v1::CancelResponse response;
  grpc::ClientContext context;
  EXPECT_TRUE(stub_->Cancel(&context, cancel, &response).ok());
  gate_.Open();
  EXPECT_EQ(first->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(second->Finish().error_code(), grpc::StatusCode::CANCELLED);
  ExpectBooksBalance();
}

TEST_F(GenerationServiceTest, AFullQueueRefusesAtOnceWithARetryDelay) {
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < 2; ++i) calls.push_back(BeginAccepted(Request("a", 100)));
  for (int i = 0; i < kMaxWaiting; ++i) {
    calls.push_back(Begin(Request("b", 3)));
    while (engine_.num_waiting() <= i) continue;
  }
  const grpc::Status status = Begin(Request("c", 3))->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  const google::protobuf::Duration delay = DetailOf<google::rpc::RetryInfo>(status).retry_delay();
  EXPECT_TRUE(delay.seconds() > 0 || delay.nanos() >= 10000000);
  gate_.Open();
  for (const auto& call : calls) EXPECT_TRUE(call->Finish().ok());
  ExpectBooksBalance();
}

TEST_F(GenerationServiceTest, BadRequestsAreNamedAndLeaveNothing) {
  v1::GenerateRequest request = Request("xyz", 4);
  request.mutable_sampling()->set_top_p(1.5f);
  const grpc::Status status = Begin(request)->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailOf<google::rpc::BadRequest>(status).field_violations(0).field(), "sampling.top_p");
  const grpc::Status long_prompt = Begin(Request(std::string(5000, 'x'), 4))->Finish();  // only tokenizing tells
  EXPECT_EQ(DetailOf<google::rpc::BadRequest>(long_prompt).field_violations(0).field(), "text");
  EXPECT_EQ(Metric("quire_requests_total{ending=\"rejected\"}"), 2);
  ExpectBooksBalance();
}

TEST_F(GenerationServiceTest, BytesThatAreNoRequestAreInvalid) {
  grpc::GenericStub generic(channel_);
  const std::string bytes = "\x0a\x02\xff\xfe";  // text that is not UTF-8
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer response;
  grpc::ClientContext context;
  std::mutex mutex;
  std::condition_variable done;
  std::optional<grpc::Status> status;
  generic.UnaryCall(&context, "/quire.v1.GenerationService/Tokenize", grpc::StubOptions(), &request, &response,
                    [&](grpc::Status result) {
                      const std::lock_guard<std::mutex> lock(mutex);
                      status = std::move(result);
                      done.notify_all();
                    });
  std::unique_lock<std::mutex> lock(mutex);
  done.wait(lock, [&] { return status.has_value(); });
  EXPECT_EQ(status->error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status->error_message(), HasSubstr("UTF-8"));
}

TEST_F(GenerationServiceTest, AClientThatDoesNotReadGetsItsDeltasTogether) {
  gate_.Open();
  const auto call = Begin(Request("xyz", 3000));
  while (Metric("quire_requests_total{ending=\"finished\"}") == 0) continue;  // ended, though nobody has read
  EXPECT_TRUE(call->Finish().ok());
  EXPECT_EQ(call->text.size(), 3000u);
  EXPECT_LT(call->num_deltas, 3000);
  ExpectBooksBalance();
}

TEST_F(GenerationServiceTest, AClientThatStopsReadingPausesItsOwnRequestAndNoOther) {
  const auto slow = BeginAccepted(LargeRequest());
  AwaitPause();
  while (engine_.snapshot().scheduler.num_running > 0) gate_.Let(1);
  EXPECT_EQ(engine_.snapshot().scheduler.blocks_held, 0);
  gate_.Open();
  const auto other = Begin(Request("abc", 50));
  EXPECT_TRUE(other->Finish().ok());
  EXPECT_EQ(Metric("quire_requests_total{ending=\"finished\"}"), 1);

  EXPECT_TRUE(slow->Finish().ok()) << "it reads again";
  EXPECT_EQ(slow->finished.usage().completion_tokens(), 4000u);
  std::string expected;
  for (int i = 0; i < 4000; ++i) expected += static_cast<char>('a' + (3 + i) % 26);
  EXPECT_EQ(slow->text, expected);
  ExpectBooksBalance();
}

class WriteTimeoutTest : public GenerationServiceTest {
 protected:
  WriteTimeoutTest() : GenerationServiceTest([](auto& setup) { setup.write_timeout = absl::Milliseconds(300); }) {}
};

TEST_F(WriteTimeoutTest, AClientThatNeverReadsIsCutAndItsRequestIsCancelled) {
  const auto slow = BeginAccepted(LargeRequest());
  AwaitPause();
  while (Metric("quire_requests_total{ending=\"cancelled\"}") == 0) std::this_thread::yield();
  EXPECT_EQ(Metric("quire_stream_stalls_total"), 1);
  EXPECT_EQ(slow->Finish().error_code(), grpc::StatusCode::CANCELLED);
  gate_.Open();
  EXPECT_TRUE(Begin(Request("abc", 5))->Finish().ok());
  EXPECT_EQ(engine_.snapshot().scheduler.blocks_held, 0);
  ExpectBooksBalance();
}

class CallRateTest : public GenerationServiceTest {
 protected:
  CallRateTest() : GenerationServiceTest([](auto& setup) { setup.max_call_rate = 3; }) {}
};

TEST_F(CallRateTest, AConnectionThatOpensCallsTooFastIsRefusedAndAnotherIsNot) {
  gate_.Open();
  const auto code = [](v1::GenerationService::Stub& stub) {
    v1::TokenizeResponse response;
    grpc::ClientContext context;
    return stub.Tokenize(&context, v1::TokenizeRequest(), &response).error_code();
  };
  int refused = 0;
  for (int i = 0; i < 20; ++i) refused += code(*stub_) == grpc::StatusCode::RESOURCE_EXHAUSTED;
  EXPECT_GT(refused, 0);
  grpc::Status status;
  while ((status = Begin(Request("a", 1))->Finish()).ok()) continue;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_GT(DetailOf<google::rpc::RetryInfo>(status).retry_delay().nanos(), 0);
  EXPECT_EQ(code(*v1::GenerationService::NewStub(services_.Connect())), grpc::StatusCode::OK);
  EXPECT_EQ(Metric("quire_requests_total{ending=\"rejected\"}"), 1);
  ExpectBooksBalance();
}

class RpcLimitsTest : public GenerationServiceTest {
 protected:
  RpcLimitsTest()
      : GenerationServiceTest([](auto& setup) {
          setup.limits = {.max_message_bytes = 5000, .max_metadata_bytes = 2000, .max_streams_per_connection = 1};
        }) {}
};

class SpansTest : public GenerationServiceTest {
 protected:
  SpansTest() : SpansTest(std::make_unique<HttpCollector>()) {}
  explicit SpansTest(std::unique_ptr<HttpCollector> collector)
      : GenerationServiceTest([&](auto& setup) { setup.otlp_url = collector->url(); }),
        collector_(std::move(collector)) {}
  ~SpansTest() override { services_.spans->Shutdown(); }  // before its collector goes

  // A call whose callers recorded it, or did not.
  grpc::Status Run(const v1::GenerateRequest& request, const std::string& traceparent) {
    Call call;
    call.context.AddMetadata("traceparent", traceparent);
    call.reader = stub_->Generate(&call.context, request);
    return call.Finish();
  }
  std::string SpanNumber(size_t i) { return collector_->Await(i + 1)[i].body; }

  const std::unique_ptr<HttpCollector> collector_;
};

TEST_F(SpansTest, CallsOfARecordedTraceAreTold) {
  gate_.Open();
  const std::string trace = "0af7651916cd43dd8448eb211c80319c", parent = "b7ad6b7169203331";
  EXPECT_TRUE(Run(Request("xyz", 3), "00-" + trace + "-" + parent + "-00").ok());  // nobody records it
  EXPECT_TRUE(Run(Request("xyz", 5), "00-" + trace + "-" + parent + "-01").ok());
  EXPECT_THAT(SpanNumber(0), testing::AllOf(HasSubstr("\"traceId\":\"" + trace + "\""),
                                            HasSubstr("\"parentSpanId\":\"" + parent + "\""),
                                            HasSubstr(R"("gen_ai.usage.output_tokens","value":{"intValue":"5"})"),
                                            HasSubstr(R"({"stringValue":"quire.v1.GenerationService"})")));
  EXPECT_FALSE(Run(Request("", 5), "00-" + trace + "-" + parent + "-01").ok());
  EXPECT_THAT(SpanNumber(1), HasSubstr(R"("error.type","value":{"stringValue":"INVALID_ARGUMENT"})"));
  EXPECT_TRUE(Begin(Request("xyz", 1))->Finish().ok());  // without a trace of its caller's
  EXPECT_THAT(SpanNumber(2), testing::Not(HasSubstr("parentSpanId")));
}

class KvEventsTest : public GenerationServiceTest {
 protected:
  explicit KvEventsTest(KvEventFeed::Limits limits = {})
      : GenerationServiceTest([&](auto& setup) {
          setup.kv_events = true;
          setup.kv_event_limits = limits;
        }) {}

  // A subscription and what its reader believes.
  struct Subscription {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<smg::grpc::common::KvEventBatch>> reader;
    uint64_t last_number = 0;
    int num_cleared = 0;
    std::map<int64_t, std::vector<uint32_t>> blocks;

    // Reads one batch; the numbers have no gap.
    void Read() {
      smg::grpc::common::KvEventBatch batch;
      ASSERT_TRUE(reader->Read(&batch));
      EXPECT_EQ(batch.sequence_number(), ++last_number);
      for (const auto& event : batch.events()) {
        if (event.has_cleared()) {
          blocks.clear();
          ++num_cleared;
        }
        for (const auto& block : event.stored().blocks()) {
          EXPECT_EQ(block.block_size(), 16);
          blocks[block.block_hash()] = {block.token_ids().begin(), block.token_ids().end()};
        }
        for (const int64_t hash : event.removed().block_hashes()) EXPECT_EQ(blocks.erase(hash), 1u);
      }
    }
    void ReadUntil(size_t num_blocks) {
      while (blocks.size() != num_blocks && !testing::Test::HasFailure()) Read();
    }
  };
  std::unique_ptr<Subscription> Subscribe(uint64_t cursor) {
    auto subscription = std::make_unique<Subscription>();
    smg::grpc::common::SubscribeKvEventsRequest request;
    request.set_start_sequence_number(cursor);
    subscription->last_number = cursor;
    subscription->reader = vllm_->SubscribeKvEvents(&subscription->context, request);
    return subscription;
  }

  const std::unique_ptr<vllm::grpc::engine::VllmEngine::Stub> vllm_ = vllm::grpc::engine::VllmEngine::NewStub(channel_);
};

TEST_F(KvEventsTest, ASubscriberKnowsWhatIsCached) {
  gate_.Open();
  EXPECT_TRUE(Begin(Request(std::string(40, 'x'), 1))->Finish().ok());  // two full blocks
  const auto first = Subscribe(0);
  first->ReadUntil(2);
  EXPECT_EQ(first->num_cleared, 1);
  EXPECT_THAT(first->blocks, testing::Each(testing::Pair(testing::_, testing::Each('x'))));
  EXPECT_TRUE(Begin(Request(std::string(20, 'y'), 1))->Finish().ok());
  first->ReadUntil(3);

  // Who comes back goes on where he was, and with what is cached now.
  first->context.TryCancel();
  const auto again = Subscribe(first->last_number);
  again->ReadUntil(3);
  EXPECT_EQ(again->blocks, first->blocks);
  EXPECT_EQ(again->num_cleared, 1);

  v1::GenerateRequest salted = Request(std::string(40, 'z'), 1);
  salted.mutable_cache()->set_salt("secret");
  EXPECT_TRUE(Begin(salted)->Finish().ok());
  EXPECT_TRUE(Begin(Request(std::string(20, 'w'), 1))->Finish().ok());
  again->ReadUntil(4);
  EXPECT_THAT(again->blocks, testing::Not(testing::Contains(testing::Pair(testing::_, testing::Contains('z')))));
}

TEST_F(KvEventsTest, TheServersEndIsTold) {
  const auto subscription = Subscribe(41);
  subscription->Read();
  services_.kv_events.Shutdown();
  smg::grpc::common::KvEventBatch batch;
  EXPECT_FALSE(subscription->reader->Read(&batch));
  EXPECT_EQ(subscription->reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

class FewKvEventsTest : public KvEventsTest {
 protected:
  FewKvEventsTest() : KvEventsTest({.max_subscribers = 1, .max_unsent_blocks = 3}) {}
};

TEST_F(FewKvEventsTest, WhoReadsTooLittleIsToldSo) {
  gate_.Open();
  const auto subscription = Subscribe(0);
  subscription->Read();
  const auto second = Subscribe(0);
  EXPECT_EQ(second->reader->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Begin(Request(std::string(100, 'x'), 1))->Finish().ok());  // six blocks in one step
  smg::grpc::common::KvEventBatch batch;
  EXPECT_FALSE(subscription->reader->Read(&batch));
  const grpc::Status status = subscription->reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("reads too slowly"));
}

TEST_F(GenerationServiceTest, AnErrorInTheDialectNamesTheDialectsFields) {
  const auto stub = vllm::grpc::engine::VllmEngine::NewStub(channel_);
  vllm::grpc::engine::GenerateRequest request;
  request.mutable_tokenized()->add_input_ids(9999);
  request.mutable_sampling_params()->set_n(17);
  request.mutable_sampling_params()->set_temperature(-1);
  grpc::ClientContext context;
  const grpc::Status status = stub->Generate(&context, request)->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  std::vector<std::string> fields;
  const auto detail = DetailOf<google::rpc::BadRequest>(status);
  for (const auto& violation : detail.field_violations()) fields.push_back(violation.field());
  EXPECT_THAT(fields, testing::UnorderedElementsAre("tokenized.input_ids[0]", "sampling_params.n",
                                                    "sampling_params.temperature"));
  EXPECT_THAT(status.error_message(), testing::StartsWith(fields[0] + ": "));
}

class StalledKvEventsTest : public KvEventsTest {
 protected:
  StalledKvEventsTest() : KvEventsTest({.max_subscribers = 1, .max_unsent_blocks = 1000}) {}
};

TEST_F(StalledKvEventsTest, WhoNeverReadsAndGoesLeavesHisPlace) {
  gate_.Open();
  const auto stalled = Subscribe(0);
  stalled->Read();
  for (int i = 0; i < 30; ++i) {  // 250 blocks each: far more than gRPC takes for a client that does not read
    EXPECT_TRUE(Begin(Request(std::to_string(i) + std::string(4000, 'x'), 1))->Finish().ok());
  }
  stalled->context.TryCancel();
  smg::grpc::common::KvEventBatch batch;
  while (!Subscribe(0)->reader->Read(&batch)) continue;
}

TEST_F(GenerationServiceTest, KvEventsAreOffUnlessAskedFor) {
  grpc::ClientContext context;
  const auto stub = vllm::grpc::engine::VllmEngine::NewStub(channel_);
  const grpc::Status status = stub->SubscribeKvEvents(&context, {})->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(status.error_message(), HasSubstr("--kv-events"));
}

TEST_F(RpcLimitsTest, MessagesAndMetadataBeyondTheLimitsAreRefused) {
  gate_.Open();
  EXPECT_TRUE(Begin(Request(std::string(4000, 'x'), 1))->Finish().ok());
  EXPECT_EQ(Begin(Request(std::string(6000, 'x'), 1))->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  grpc::ClientContext context;
  context.AddMetadata("x-large", std::string(10000, 'v'));
  v1::TokenizeResponse response;
  EXPECT_FALSE(stub_->Tokenize(&context, v1::TokenizeRequest(), &response).ok());
  grpc::ClientContext other;
  EXPECT_TRUE(
      v1::GenerationService::NewStub(services_.Connect())->Tokenize(&other, v1::TokenizeRequest(), &response).ok());
}

TEST_F(RpcLimitsTest, StreamsBeyondTheLimitWaitInTheClient) {
  const auto first = Begin(Request("abc", 2));
  while (engine_.snapshot().scheduler.num_running == 0) continue;
  std::thread second([this] { EXPECT_TRUE(Begin(Request("abc", 2))->Finish().ok()); });
  const auto other = v1::GenerationService::NewStub(services_.Connect());
  v1::TokenizeResponse response;
  grpc::ClientContext context;
  EXPECT_TRUE(other->Tokenize(&context, v1::TokenizeRequest(), &response).ok());
  EXPECT_EQ(Metric("quire_requests_received_total"), 1);
  gate_.Open();
  EXPECT_TRUE(first->Finish().ok());
  second.join();
  EXPECT_EQ(Metric("quire_requests_received_total"), 2);
}

TEST_F(GenerationServiceTest, AnAllocationThatFailsEndsItsCallOnly) {
  const auto call = BeginAccepted(Request("xyz", 2000));
  {
    const FailLargeAllocations fail(8000);
    EXPECT_EQ(Begin(Request(std::string(9000, 'x'), 1))->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED)
        << "while it is parsed";
    const grpc::Status status = Begin(Request(std::string(3000, 'x'), 1))->Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << "while it is tokenized";
    EXPECT_GT(DetailOf<google::rpc::RetryInfo>(status).retry_delay().seconds(), 0);
    v1::TokenizeRequest request;
    request.set_text(std::string(3000, 'x'));
    v1::TokenizeResponse response;
    grpc::ClientContext context;
    EXPECT_EQ(stub_->Tokenize(&context, request, &response).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  }
  gate_.Open();
  EXPECT_TRUE(Begin(Request(std::string(3000, 'x'), 1))->Finish().ok());
  EXPECT_TRUE(call->Finish().ok());
  EXPECT_EQ(call->text.size(), 2000u);
  ExpectBooksBalance();
}

TEST_F(GenerationServiceTest, AClosedServerIsUnavailableAndFinishesWhatItTook) {
  const auto call = BeginAccepted(Request("xyz", 20));
  std::mutex mutex;
  std::condition_variable emptied;
  bool empty = false;
  live_.Close([&] {
    const std::lock_guard<std::mutex> lock(mutex);
    empty = true;
    emptied.notify_all();
  });
  EXPECT_EQ(Begin(Request("a", 1))->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_FALSE(empty);
  gate_.Open();
  EXPECT_TRUE(call->Finish().ok());
  std::unique_lock<std::mutex> lock(mutex);
  emptied.wait(lock, [&] { return empty; });
}

TEST_F(GenerationServiceTest, TokenizesAndDetokenizes) {
  v1::TokenizeRequest text;
  text.set_text("hé");
  v1::TokenizeResponse tokens;
  grpc::ClientContext first;
  ASSERT_TRUE(stub_->Tokenize(&first, text, &tokens).ok());
  EXPECT_THAT(tokens.ids(), testing::ElementsAre('h', 0xc3, 0xa9));
  EXPECT_EQ(tokens.tokens(1), "\xc3");

  v1::DetokenizeRequest ids;
  for (const uint32_t id : {uint32_t{'h'}, 0xc3u, 0xa9u, kByteTokenizerEnd}) ids.add_ids(id);
  v1::DetokenizeResponse back;
  grpc::ClientContext second;
  ASSERT_TRUE(stub_->Detokenize(&second, ids, &back).ok());
  EXPECT_EQ(back.text(), "hé");
  ids.add_ids(257);
  grpc::ClientContext third;
  const grpc::Status status = stub_->Detokenize(&third, ids, &back);
  EXPECT_EQ(DetailOf<google::rpc::BadRequest>(status).field_violations(0).field(), "ids[4]");
}

}  // namespace
}  // namespace quire
