// Detokenizer and RequestOutput: scripts of engine events and the responses that come of them.

#include "server/detokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tests/server/byte_tokenizer.h"

namespace quire {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::Time kArrival = absl::UnixEpoch();

// Keeps what it is told and lets the test wait for the end.
class FakeSink final : public ResponseSink {
 public:
  void Push(v1::GenerateResponse response, uint32_t num_tokens) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (response.has_delta()) text_ += response.delta().text();
    for (const uint32_t id : response.delta().token_ids()) ids_.push_back(id);
    tokens_ += num_tokens;
    all_.push_back(response);
    kinds_.push_back(response.event_case());
    last_ = std::move(response);
  }
  void End(const absl::Status& status) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    status_ = status;
    ++ends_;
    ended_.notify_all();
  }

  absl::Status Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    ended_.wait(lock, [this] { return ends_ > 0; });
    EXPECT_EQ(ends_, 1);
    return status_;
  }
  // After Wait.
  const std::string& text() const { return text_; }
  const std::vector<uint32_t>& ids() const { return ids_; }
  const std::vector<v1::GenerateResponse::EventCase>& kinds() const { return kinds_; }
  const v1::GenerateResponse& last() const { return last_; }
  uint32_t tokens() const { return tokens_; }
  const std::vector<v1::GenerateResponse>& all() const { return all_; }

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  std::string text_;
  std::vector<uint32_t> ids_;
  std::vector<v1::GenerateResponse::EventCase> kinds_;
  v1::GenerateResponse last_;
  std::vector<v1::GenerateResponse> all_;
  uint32_t tokens_ = 0;
  absl::Status status_;
  int ends_ = 0;
};

std::shared_ptr<Request> MakeRequest(RequestId id) {
  auto request = std::make_shared<Request>();
  request->id = id;
  request->prompt = {'h', 'i', '!'};
  request->max_tokens = 10;
  request->sampling.seed = 42;
  request->arrival = kArrival;
  return request;
}

TokenEvent Started(RequestId id, int ms) {
  TokenEvent event;
  event.kind = EventKind::kStarted;
  event.request_id = id;
  event.time = kArrival + absl::Milliseconds(ms);
  event.cached_tokens = 2;
  return event;
}

TokenEvent Token(RequestId id, int ms, uint32_t token, FinishReason finish = FinishReason::kNone) {
  TokenEvent event;
  event.request_id = id;
  event.time = kArrival + absl::Milliseconds(ms);
  event.token_id = token;
  event.finish = finish;
  return event;
}

TokenEvent Ended(RequestId id, Ending ending) {
  TokenEvent event;
  event.kind = EventKind::kEnded;
  event.request_id = id;
  event.ending = ending;
  event.time = kArrival + absl::Milliseconds(50);
  return event;
}

class DetokenizerTest : public testing::Test {
 protected:
  DetokenizerTest()
      : tokenizer_(MakeByteTokenizer()),
        metrics_(Info()),
        log_(LogFormat::kText),
        detokenizer_(*tokenizer_, metrics_, log_) {
    detokenizer_.Start(
        [this](RequestId id, uint32_t index) {
          const std::lock_guard<std::mutex> lock(mutex_);
          stopped_.emplace_back(id, index);
        },
        [this](const absl::Status& status) {
          const std::lock_guard<std::mutex> lock(mutex_);
          failure_ = status;
        });
  }

  static Metrics::Info Info() {
    Metrics::Info info;
    info.model_name = "bytes";
    info.num_blocks = 1;
    info.max_model_len = 100;
    return info;
  }

  std::shared_ptr<FakeSink> Open(const std::shared_ptr<Request>& request, OutputSpec spec = {}) {
    auto sink = std::make_shared<FakeSink>();
    spec.request_id = "r" + std::to_string(request->id);
    detokenizer_.Open(request, std::move(spec), sink);
    return sink;
  }

  void Send(std::vector<TokenEvent> events) { detokenizer_.OnEvents(events); }

  const std::unique_ptr<Tokenizer> tokenizer_;
  Metrics metrics_;
  RequestLog log_;
  Detokenizer detokenizer_;
  std::mutex mutex_;
  std::vector<std::pair<RequestId, uint32_t>> stopped_;
  absl::Status failure_;
};

TEST_F(DetokenizerTest, AStreamIsAcceptedThenDeltasThenFinished) {
  const auto sink = Open(MakeRequest(7));
  Send({Started(7, 10), Token(7, 30, 'a')});
  Send({Token(7, 40, 'b'), Token(7, 60, 'c', FinishReason::kLength)});
  EXPECT_TRUE(sink->Wait().ok());
  using R = v1::GenerateResponse;
  EXPECT_THAT(sink->kinds(), ElementsAre(R::kAccepted, R::kDelta, R::kDelta, R::kDelta, R::kFinished));
  EXPECT_EQ(sink->text(), "abc");
  EXPECT_THAT(sink->ids(), ElementsAre('a', 'b', 'c'));
  const v1::Finished& finished = sink->last().finished();
  EXPECT_EQ(finished.reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(finished.usage().prompt_tokens(), 3u);
  EXPECT_EQ(finished.usage().completion_tokens(), 3u);
  EXPECT_EQ(finished.usage().cached_tokens(), 2u);
  EXPECT_EQ(finished.timings().queued().nanos(), 10000000);
  EXPECT_EQ(finished.timings().prefill().nanos(), 20000000);
  EXPECT_EQ(finished.timings().time_to_first_token().nanos(), 30000000);
  EXPECT_EQ(finished.timings().decode().nanos(), 30000000);
  EXPECT_EQ(finished.timings().total().nanos(), 60000000);
}

TEST_F(DetokenizerTest, AStopStringEndsTheOutputWhateverTheEngineSampledSince) {
  OutputSpec spec;
  spec.text.stop = {"cd", "never"};
  const auto sink = Open(MakeRequest(1), spec);
  Send({Started(1, 1), Token(1, 2, 'b'), Token(1, 3, 'c'), Token(1, 4, 'd'), Token(1, 5, 'e'), Token(1, 6, 'f')});
  EXPECT_TRUE(sink->Wait().ok());
  EXPECT_EQ(sink->text(), "b");
  EXPECT_THAT(sink->ids(), ElementsAre('b', 'c', 'd'));
  EXPECT_EQ(sink->last().finished().stop(), "cd");
  EXPECT_EQ(sink->last().finished().usage().completion_tokens(), 3u);
  EXPECT_EQ(sink->last().finished().timings().total().nanos(), 4000000);
  detokenizer_.Shutdown();
  EXPECT_THAT(stopped_, ElementsAre(std::pair(1, 0)));
  EXPECT_THAT(metrics_.Text(EngineSnapshot()), HasSubstr("quire_tokens_discarded_total 2\n"));
  EXPECT_THAT(metrics_.Text(EngineSnapshot()), HasSubstr("quire_late_events_total 2\n"));
}

TokenEvent Of(uint32_t index, TokenEvent event) {
  event.index = index;
  return event;
}

TEST_F(DetokenizerTest, EachOutputOfARequestHasItsOwnTextStopAndFinished) {
  auto request = MakeRequest(1);
  request->num_outputs = 3;
  OutputSpec spec;
  spec.text.stop = {"xy"};
  const auto sink = Open(request, spec);
  Send({Started(1, 10), Token(1, 20, 'x'), Of(1, Token(1, 20, 'a')), Of(2, Token(1, 20, 0xc3)),  // x waits for y
        Of(2, Token(1, 30, 0xa9)), Of(1, Token(1, 30, 'x')), Token(1, 30, 'y'),                  // the stop string of 0
        Of(1, Token(1, 40, 'z', FinishReason::kLength)), Token(1, 40, 'q'),                      // q is for nobody
        Of(2, Token(1, 50, 'e', FinishReason::kStop))});
  EXPECT_TRUE(sink->Wait().ok());
  std::string texts[3];
  std::map<uint32_t, v1::Finished> finished;
  for (const v1::GenerateResponse& response : sink->all()) {
    if (response.has_delta()) texts[response.delta().index()] += response.delta().text();
    if (response.has_finished()) {
      EXPECT_TRUE(finished.emplace(response.finished().index(), response.finished()).second);
    }
  }
  EXPECT_EQ(texts[0], "");
  EXPECT_EQ(texts[1], "axz");
  EXPECT_EQ(texts[2], "é");
  ASSERT_EQ(finished.size(), 3u);
  EXPECT_EQ(finished[0].stop(), "xy");
  EXPECT_EQ(finished[0].usage().completion_tokens(), 2u);
  EXPECT_EQ(finished[0].timings().total().nanos(), 30000000);
  EXPECT_EQ(finished[1].reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(finished[1].timings().total().nanos(), 40000000);
  EXPECT_EQ(finished[2].stop_token_id(), 'e');
  EXPECT_EQ(finished[2].usage().completion_tokens(), 3u);
  EXPECT_EQ(finished[2].usage().cached_tokens(), 2u);
  EXPECT_EQ(sink->tokens(), 8u);
  detokenizer_.Shutdown();
  EXPECT_THAT(stopped_, ElementsAre(std::pair(1, 0)));
  const std::string text = metrics_.Text(EngineSnapshot());
  EXPECT_THAT(text, HasSubstr("quire_tokens_discarded_total 1\n"));
  EXPECT_THAT(text, HasSubstr("{ending=\"finished\"} 1\n"));
}

TEST_F(DetokenizerTest, ARequestThatEndsOtherwiseHasNoMoreOutputs) {
  auto request = MakeRequest(1);
  request->num_outputs = 2;
  const auto sink = Open(request);
  Send({Started(1, 10), Token(1, 20, 'a', FinishReason::kLength), Of(1, Token(1, 20, 'b')),
        Ended(1, Ending::kCancelled), Of(1, Token(1, 60, 'c'))});
  EXPECT_EQ(sink->Wait().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(sink->tokens(), 2u);
}

TEST_F(DetokenizerTest, AStopStringAtTheLastTokenNeedsNoStop) {
  OutputSpec spec;
  spec.text.stop = {"b"};
  const auto sink = Open(MakeRequest(1), spec);
  Send({Started(1, 1), Token(1, 2, 'a'), Token(1, 3, 'b', FinishReason::kLength)});
  EXPECT_TRUE(sink->Wait().ok());
  EXPECT_EQ(sink->last().finished().reason(), v1::FINISH_REASON_STOP);
  detokenizer_.Shutdown();
  EXPECT_TRUE(stopped_.empty());
}

TEST_F(DetokenizerTest, TheTokenThatStopsIsCountedAndNotShown) {
  const auto sink = Open(MakeRequest(1));
  Send({Started(1, 1), Token(1, 2, 'a'), Token(1, 3, 'b', FinishReason::kStop)});
  EXPECT_TRUE(sink->Wait().ok());
  EXPECT_EQ(sink->text(), "a");
  EXPECT_THAT(sink->ids(), ElementsAre('a', 'b'));
  EXPECT_EQ(sink->last().finished().stop_token_id(), 'b');
  EXPECT_EQ(sink->last().finished().usage().completion_tokens(), 2u);
}

TEST_F(DetokenizerTest, HalfACharacterWaitsAndItsTokensAreDeliveredWithTheRest) {
  OutputSpec spec;
  spec.wants_token_ids = false;
  const auto sink = Open(MakeRequest(1), spec);
  Send({Started(1, 1), Token(1, 2, 0xc3), Token(1, 3, 0xa9), Token(1, 4, 0xe2, FinishReason::kLength)});
  EXPECT_TRUE(sink->Wait().ok());
  EXPECT_EQ(sink->text(), "é\uFFFD");
  EXPECT_EQ(sink->kinds().size(), 4u);  // Accepted, é, U+FFFD, Finished
  EXPECT_EQ(sink->tokens(), 3u);
}

TEST_F(DetokenizerTest, LogprobsStandBesideTheirTokens) {
  auto request = MakeRequest(1);
  request->num_logprobs = 2;
  request->num_prompt_logprobs = 1;
  OutputSpec spec;
  spec.wants_text = false;
  spec.wants_token_ids = false;
  const auto sink = Open(request, spec);
  TokenEvent prompt;
  prompt.kind = EventKind::kPromptLogprobs;
  prompt.request_id = 1;
  prompt.first_position = 1;
  prompt.detail = std::make_shared<TokenEvent::Detail>(
      TokenEvent::Detail{.top = {{9, -0.1f}, {8, -0.2f}}, .logprobs = {-0.5f, -0.25f}});
  TokenEvent token = Token(1, 3, 'a', FinishReason::kLength);
  token.logprob = -1.5f;
  token.detail = std::make_shared<TokenEvent::Detail>(TokenEvent::Detail{.top = {{4, -0.3f}, {5, -0.4f}}});
  RequestOutput output(request, spec, *tokenizer_);
  std::vector<RequestOutput::Response> responses;
  output.Take(prompt, responses);
  const v1::PromptLogprobs& told = responses[0].message.prompt_logprobs();
  EXPECT_EQ(told.first_position(), 1u);
  EXPECT_EQ(told.logprobs(0).token_id(), 'i');
  EXPECT_EQ(told.logprobs(1).token_id(), '!');
  EXPECT_EQ(told.logprobs(1).top(0).token_id(), 8u);
  output.Take(token, responses);
  const v1::TokenLogprobs& chosen = responses[1].message.delta().logprobs(0);
  EXPECT_EQ(chosen.token_id(), 'a');
  EXPECT_EQ(chosen.logprob(), -1.5f);
  EXPECT_EQ(chosen.top(1).token_id(), 5u);
  Send({Ended(1, Ending::kCancelled)});
  EXPECT_EQ(sink->Wait().code(), absl::StatusCode::kCancelled);
}

TEST_F(DetokenizerTest, LongPromptLogprobsAreSplit) {
  auto request = MakeRequest(1);
  request->prompt.assign(RequestOutput::kMaxPositionsPerMessage + 2, 'x');
  request->num_prompt_logprobs = 20;
  RequestOutput output(request, {}, *tokenizer_);
  TokenEvent prompt;
  prompt.kind = EventKind::kPromptLogprobs;
  prompt.first_position = 1;
  const auto detail = std::make_shared<TokenEvent::Detail>();
  detail->logprobs.assign(request->prompt.size() - 1, -1);
  detail->top.assign(20 * detail->logprobs.size(), {4294967295u, -1});
  prompt.detail = detail;
  std::vector<RequestOutput::Response> responses;
  output.Take(prompt, responses);
  ASSERT_EQ(responses.size(), 2u);
  EXPECT_LT(responses[0].message.ByteSizeLong(), size_t{4} << 20);
  EXPECT_EQ(responses[1].message.prompt_logprobs().first_position(), RequestOutput::kMaxPositionsPerMessage + 1);
}

TEST_F(DetokenizerTest, EveryEndingHasItsStatus) {
  const std::pair<Ending, absl::StatusCode> cases[] = {
      {Ending::kCancelled, absl::StatusCode::kCancelled},
      {Ending::kExpired, absl::StatusCode::kDeadlineExceeded},
      {Ending::kQueueTimeExceeded, absl::StatusCode::kDeadlineExceeded},
      {Ending::kDeadlineUnreachable, absl::StatusCode::kDeadlineExceeded},
      {Ending::kRefused, absl::StatusCode::kResourceExhausted},
      {Ending::kFailed, absl::StatusCode::kInternal},
      {Ending::kEngineFailed, absl::StatusCode::kUnavailable},
      {Ending::kShutdown, absl::StatusCode::kUnavailable}};
  RequestId id = 1;
  for (const auto& [ending, code] : cases) {
    const auto sink = Open(MakeRequest(id));
    Send({Started(id, 1), Token(id, 2, 'a'), Ended(id, ending)});
    EXPECT_EQ(sink->Wait().code(), code);
    EXPECT_EQ(sink->text(), "a");
    EXPECT_FALSE(sink->last().has_finished());
    ++id;
  }
  detokenizer_.Shutdown();
  const std::string text = metrics_.Text(EngineSnapshot());
  EXPECT_THAT(text, HasSubstr("{ending=\"cancelled\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("{ending=\"expired\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("{ending=\"rejected\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("{ending=\"failed\"} 3\n"));
}

TEST_F(DetokenizerTest, ATimeLimitEndsWithWhatThereIsAndStatusOk) {
  TokenEvent stopped;
  stopped.kind = EventKind::kStopped;
  stopped.finish = FinishReason::kTimeLimit;
  for (const bool started : {true, false}) {
    stopped.request_id = started ? 1 : 2;
    stopped.time = MakeRequest(1)->arrival + absl::Seconds(9);
    const auto sink = Open(MakeRequest(stopped.request_id));
    if (started) Send({Started(1, 1), Token(1, 2, 'a')});
    Send({stopped});
    EXPECT_TRUE(sink->Wait().ok());
    EXPECT_EQ(sink->text(), started ? "a" : "");
    ASSERT_TRUE(sink->last().has_finished());
    const v1::Finished& finished = sink->last().finished();
    EXPECT_EQ(finished.reason(), v1::FINISH_REASON_TIME_LIMIT);
    EXPECT_EQ(finished.usage().completion_tokens(), started ? 1u : 0u);
    EXPECT_EQ(finished.timings().total().seconds(), 9);
    EXPECT_EQ(finished.timings().queued().seconds(), started ? 0 : 9);
  }
}

// The engine learns of a stop string later than of a time limit that comes at the same moment.
TEST_F(DetokenizerTest, ATimeLimitDoesNotEndAnOutputThatAStopStringHasEnded) {
  const auto request = MakeRequest(1);
  request->num_outputs = 2;
  OutputSpec spec;
  spec.text.stop = {"b"};
  const auto sink = Open(request, std::move(spec));
  TokenEvent stopped;
  stopped.request_id = 1;
  stopped.kind = EventKind::kStopped;
  stopped.finish = FinishReason::kTimeLimit;
  stopped.time = kArrival + absl::Milliseconds(5);
  TokenEvent other = stopped;
  other.index = 1;
  Send({Started(1, 1), Token(1, 2, 'b'), stopped, other});
  EXPECT_TRUE(sink->Wait().ok());
  std::vector<std::pair<uint32_t, v1::FinishReason>> endings;
  for (const v1::GenerateResponse& response : sink->all()) {
    if (response.has_finished()) endings.emplace_back(response.finished().index(), response.finished().reason());
  }
  EXPECT_THAT(endings, ElementsAre(std::pair(0u, v1::FINISH_REASON_STOP), std::pair(1u, v1::FINISH_REASON_TIME_LIMIT)));
}

TEST_F(DetokenizerTest, AnAbandonedRequestIsForgotten) {
  const auto sink = Open(MakeRequest(1));
  detokenizer_.Abandon(1);
  const auto other = Open(MakeRequest(2));
  Send({Ended(2, Ending::kCancelled)});
  EXPECT_EQ(other->Wait().code(), absl::StatusCode::kCancelled);
  Send({Token(1, 2, 'a')});
  detokenizer_.Shutdown();
  EXPECT_TRUE(sink->kinds().empty());
}

TEST_F(DetokenizerTest, WhatIsOpenAtShutdownEndsUnavailable) {
  const auto sink = Open(MakeRequest(1));
  Send({Started(1, 1)});
  detokenizer_.Shutdown();
  EXPECT_EQ(sink->Wait().code(), absl::StatusCode::kUnavailable);
}

TEST_F(DetokenizerTest, AnEngineFailureIsToldAfterAllEvents) {
  const auto sink = Open(MakeRequest(1));
  Send({Started(1, 1), Ended(1, Ending::kFailed)});
  detokenizer_.OnEngineFailure(absl::InternalError("device lost"));
  EXPECT_EQ(sink->Wait().code(), absl::StatusCode::kInternal);
  detokenizer_.Shutdown();
  EXPECT_EQ(failure_.message(), "device lost");
}

}  // namespace
}  // namespace quire
