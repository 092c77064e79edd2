#include "client/load/openai_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/client/fake_daemon.h"
#include "tests/fake_http_server.h"

namespace quire::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;
using Reply = FakeHttpServer::Reply;
using Request = FakeHttpServer::Request;

constexpr char kModels[] = R"({"object":"list","data":[{"id":"tales","object":"model","meta":{"n_vocab":90}}]})";

// The body of a chunk of /v1/completions.
std::string CompletionChunk(const std::string& text, const std::string& finish_reason = "") {
  Json choice = {{"index", 0}, {"text", text}, {"finish_reason", nullptr}};
  if (!finish_reason.empty()) choice["finish_reason"] = finish_reason;
  return Json{{"object", "text_completion"}, {"choices", {choice}}}.dump();
}

std::string UsageChunk(int prompt_tokens, int completion_tokens) {
  return Json{{"choices", Json::array()},
              {"usage", {{"prompt_tokens", prompt_tokens}, {"completion_tokens", completion_tokens}}}}
      .dump();
}

// max_tokens messages of a token each, the ending, the usage.
void Count(const Request& request, Reply& reply) {
  const Json body = Json::parse(request.body);
  const int count = body.value("max_tokens", 3);
  reply.BeginEvents();
  for (int i = 0; i < count; ++i) {
    reply.Event(CompletionChunk(absl::StrCat(" ", i)));
  }
  reply.Event(CompletionChunk("", "length"));
  reply.Event(UsageChunk(static_cast<int>(body["prompt"].size()), count));
  reply.Event("[DONE]");
  reply.Piece("");
}

class OpenAiBackendTest : public ::testing::Test {
 protected:
  // A run of prompts of 8 tokens and outputs of 4 against a server that answers completions with `handler`.
  Outcome Load(const FakeHttpServer::Handler& handler, const std::string& flags,
               const std::vector<std::string>& more = {}) {
    FakeHttpServer server([&](const Request& request, Reply& reply) {
      if (request.path == "/v1/models") {
        reply.Full(models_status_, "application/json", kModels);
      } else {
        handler(request, reply);
      }
    });
    const std::string folder = ::testing::TempDir() + "/openai_backend_test_" + std::to_string(getpid());
    const Outcome outcome = RunQuire(
        "load --backend " + backend_ + " --random-input-len 8 --random-output-len 4 --save-result --result-filename " +
            std::string("r.json --result-dir ") + folder + " --base-url " + server.url() + " " + flags,
        more);
    if (std::ifstream file(folder + "/r.json"); file) {
      result_ = Json::parse(file);
    }
    std::remove((folder + "/r.json").c_str());
    sent_ = server.requests();
    num_connections_ = server.num_connections();
    return outcome;
  }

  std::string backend_ = "openai";
  int models_status_ = 200;
  Json result_;
  std::vector<Request> sent_;
  size_t num_connections_ = 0;
};

TEST_F(OpenAiBackendTest, CompletionsStreamAndTheServersUsageIsTheCount) {
  const Outcome outcome = Load(Count, "--num-prompts 6 --max-concurrency 2 --save-detailed --seed 4");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(result_["completed"], 6);
  EXPECT_EQ(result_["model_id"], "tales");
  EXPECT_EQ(result_["total_input_tokens"], 6 * 8);
  EXPECT_EQ(result_["total_output_tokens"], 6 * 4);
  EXPECT_EQ(result_["generated_texts"][0], " 0 1 2 3");
  EXPECT_EQ(result_["itls"][0].size(), 3u);
  EXPECT_EQ(result_["requests_without_usage"], 0);

  ASSERT_EQ(sent_.size(), 7u);
  EXPECT_EQ(sent_[1].path, "/v1/completions");
  const Json body = Json::parse(sent_[1].body);
  EXPECT_EQ(body["model"], "tales");
  EXPECT_EQ(body["prompt"].size(), 8u);
  for (const Json& id : body["prompt"]) {
    EXPECT_LT(id.get<int>(), 90) << "the server's meta.n_vocab";
  }
  EXPECT_EQ(body["stream"], true);
  EXPECT_EQ(body["stream_options"]["include_usage"], true);
  EXPECT_EQ(body["ignore_eos"], true);
  EXPECT_EQ(body["temperature"], 0);
  EXPECT_EQ(body["seed"], 4);
  EXPECT_LE(num_connections_, 3u) << "connections are kept alive and used again";
}

TEST_F(OpenAiBackendTest, ChatSendsWordsAndReadsDeltas) {
  const auto chat = [](const Request&, Reply& reply) {
    reply.BeginEvents();
    reply.Event(R"({"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]})");
    for (const char* word : {"a", "b", "c"}) {
      reply.Event(Json{{"choices", {{{"delta", {{"content", word}}}, {"finish_reason", nullptr}}}}}.dump());
    }
    reply.Event(
        R"({"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":11,"completion_tokens":3}})");
    reply.Event("[DONE]");
    reply.Piece("");
  };
  backend_ = "openai-chat";
  const Outcome outcome = Load(chat, "--num-prompts 1 --save-detailed");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(result_["total_input_tokens"], 11);
  EXPECT_EQ(result_["total_output_tokens"], 3);
  EXPECT_EQ(result_["generated_texts"][0], "abc");
  EXPECT_EQ(result_["itls"][0].size(), 2u) << "the announcement of the role is no token";
  const Json body = Json::parse(sent_[1].body);
  EXPECT_EQ(sent_[1].path, "/v1/chat/completions");
  EXPECT_EQ(body["messages"][0]["role"], "user");
  EXPECT_EQ(body["max_completion_tokens"], 4);
  EXPECT_FALSE(body.contains("prompt"));
}

TEST_F(OpenAiBackendTest, TheStreamMayComeInAnyPieces) {
  const auto dribble = [](const Request&, Reply& reply) {
    reply.BeginEvents();
    const std::string stream = ": hello\r\n\r\ndata: " + CompletionChunk("é") + "\r\n\r\ndata:" + CompletionChunk("z") +
                               "\r\n\r\ndata: " + CompletionChunk("", "stop") + "\r\n\r\ndata: [DONE]\r\n\r\n";
    for (char c : stream) {
      reply.Piece(std::string(1, c));
    }
    reply.Piece("");
  };
  EXPECT_EQ(Load(dribble, "--num-prompts 1 --save-detailed").code, 0);
  EXPECT_EQ(result_["generated_texts"][0], "éz");
}

TEST_F(OpenAiBackendTest, WithoutUsageMessagesAreCountedAndTheReportSaysSo) {
  const auto silent = [](const Request&, Reply& reply) {
    reply.BeginEvents();
    reply.Event(CompletionChunk("a"));
    reply.Event(CompletionChunk("b", "stop"));
    reply.Event("[DONE]");
    reply.Piece("");
  };
  const Outcome outcome = Load(silent, "--num-prompts 2");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(result_["total_output_tokens"], 4);
  EXPECT_EQ(result_["total_input_tokens"], 16) << "the ids that were sent";
  EXPECT_EQ(result_["requests_without_usage"], 2);
  EXPECT_THAT(outcome.out, HasSubstr("Note: for 2 requests the server reported no usage: their output tokens are "));
}

TEST_F(OpenAiBackendTest, MessagesOfSeveralTokensAreSaidToBe) {
  const auto pairs = [](const Request&, Reply& reply) {
    reply.BeginEvents();
    reply.Event(CompletionChunk("a b"));
    reply.Event(CompletionChunk("c d", "stop"));
    reply.Event(UsageChunk(8, 4));
    reply.Event("[DONE]");
    reply.Piece("");
  };
  const Outcome outcome = Load(pairs, "--num-prompts 1");
  EXPECT_EQ(result_["total_output_tokens"], 4);
  EXPECT_EQ(result_["total_messages"], 2);
  EXPECT_THAT(outcome.out, HasSubstr("Note: 4 output tokens came in 2 messages"));
}

TEST_F(OpenAiBackendTest, ContinuousUsageTellsTheTokensOfEachMessage) {
  const auto tell = [](const Request&, Reply& reply) {
    reply.BeginEvents();
    int total = 0;
    for (int count : {1, 3, 2}) {
      Json chunk = Json::parse(CompletionChunk("x"));
      chunk["usage"] = {{"prompt_tokens", 8}, {"completion_tokens", total += count}};
      reply.Event(chunk.dump());
    }
    reply.Event(CompletionChunk("", "length"));
    reply.Event("[DONE]");
    reply.Piece("");
  };
  EXPECT_EQ(Load(tell, "--num-prompts 1 --save-detailed", {"--extra-body", R"({"stream_options":{"x":1}})"}).code, 0);
  EXPECT_EQ(result_["total_output_tokens"], 6);
  EXPECT_EQ(result_["itls"][0].size(), 5u);
  const Json body = Json::parse(sent_[1].body);
  EXPECT_EQ(body["stream_options"]["x"], 1) << "--extra-body is merged";
  EXPECT_EQ(body["stream_options"]["include_usage"], true);
}

TEST_F(OpenAiBackendTest, FailuresAreToldApart) {
  std::atomic<int> turn{0};
  const auto fail = [&](const Request& request, Reply& reply) {
    switch (turn++) {
      case 0:
        reply.Full(429, "application/json", R"({"error":{"message":"queue is full","code":429}})",
                   "Retry-After: 2\r\n");
        break;
      case 1:
        reply.Full(500, "text/plain", "oops");
        break;
      case 2:
        reply.BeginEvents();
        reply.Event(CompletionChunk("a"));
        reply.Event(R"({"error":{"message":"out of memory"}})");
        reply.Event("[DONE]");
        reply.Piece("");
        break;
      case 3:
        reply.BeginEvents();
        reply.Event(CompletionChunk("a"));
        reply.Close();
        break;
      case 4:
        reply.BeginEvents();
        reply.Event(CompletionChunk("a"));
        reply.Event("{broken");
        reply.Piece("");
        break;
      case 5:
        reply.BeginEvents();
        reply.Event(CompletionChunk("a"));
        reply.Piece("");
        break;
      case 6:
        reply.Full(200, "application/json", R"({"choices":[{"text":"whole","finish_reason":"stop"}]})");
        break;
      case 7:
        reply.Full(200, "application/json", R"({"error":"no such model"})");
        break;
      default:
        Count(request, reply);
    }
  };
  const Outcome outcome = Load(fail, "--num-prompts 9 --max-concurrency 1 --save-detailed");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(result_["completed"], 1);
  EXPECT_EQ(result_["failed"], 8);
  EXPECT_EQ(result_["total_output_tokens"], 4) << "failures are in no total";
  std::vector<std::string> errors = result_["errors"];
  EXPECT_EQ(errors[0], "HTTP 429: queue is full");
  EXPECT_EQ(errors[1], "HTTP 500: oops");
  EXPECT_EQ(errors[2], "the stream says: out of memory");
  EXPECT_THAT(errors[3], HasSubstr("HTTP: "));
  EXPECT_THAT(errors[4], HasSubstr("no JSON object: {broken"));
  EXPECT_THAT(errors[5], HasSubstr("broke off"));
  EXPECT_THAT(errors[6], HasSubstr("no event stream came"));
  EXPECT_EQ(errors[7], "no event stream came: no such model");
  EXPECT_EQ(errors[8], "");
}

TEST_F(OpenAiBackendTest, ADeadlineEndsAStreamThatDoesNot) {
  const auto hang = [](const Request&, Reply& reply) {
    reply.BeginEvents();
    while (reply.Event(CompletionChunk("a"))) {
      usleep(1000);
    }
  };
  const Outcome outcome = Load(hang, "--num-prompts 1 --timeout 100ms");
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("DEADLINE_EXCEEDED"));
}

TEST_F(OpenAiBackendTest, ACancelStormClosesTheConnection) {
  std::atomic<int> gone{0};
  const auto forever = [&](const Request&, Reply& reply) {
    reply.BeginEvents();
    while (reply.Event(CompletionChunk("a"))) {
      usleep(1000);
    }
    ++gone;
  };
  const Outcome outcome = Load(forever, "--num-prompts 4 --max-concurrency 2 --request-cancellation-rate 100");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(result_["cancelled"], 4);
  EXPECT_EQ(result_["failed"], 0);
  EXPECT_EQ(gone, 4);
}

TEST_F(OpenAiBackendTest, ASlowReaderWaitsBetweenReads) {
  const auto paced = [](const Request&, Reply& reply) {
    reply.BeginEvents();
    for (int i = 0; i < 4; ++i) {
      reply.Event(CompletionChunk(std::string(20000, 'x')));  // more than one read each
    }
    reply.Event(CompletionChunk("", "stop"));
    reply.Event("[DONE]");
    reply.Piece("");
  };
  EXPECT_EQ(Load(paced, "--num-prompts 1 --read-delay-ms 20").code, 0);
  EXPECT_GE(result_["duration"], 4 * 0.020) << "80 kB are at least five reads of 16 kB";
}

TEST_F(OpenAiBackendTest, SendsKeyAndHeaders) {
  EXPECT_EQ(Load(Count, "--num-prompts 1 --api-key sk-1 --header X-Team=a=b").code, 0);
  EXPECT_THAT(sent_[1].head, HasSubstr("Authorization: Bearer sk-1\r\n"));
  EXPECT_THAT(sent_[1].head, HasSubstr("X-Team: a=b\r\n"));
  EXPECT_THAT(sent_[0].head, HasSubstr("Authorization: Bearer sk-1\r\n"));
}

TEST_F(OpenAiBackendTest, AModelGivenByNameNeedsNoList) {
  models_status_ = 404;
  EXPECT_EQ(Load(Count, "--num-prompts 1").code, 2);
  const Outcome outcome = Load(Count, "--num-prompts 1 --model other");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(Json::parse(sent_[1].body)["model"], "other");
  EXPECT_TRUE(Json::parse(sent_[1].body)["prompt"].is_string()) << "without a vocabulary's size, words";
  EXPECT_THAT(outcome.err, HasSubstr("--vocab-size N sends ids"));
  EXPECT_EQ(Load(Count, "--num-prompts 1 --model other --vocab-size 7").code, 0);
  EXPECT_EQ(Json::parse(sent_[1].body)["prompt"].size(), 8u);
}

TEST_F(OpenAiBackendTest, CorpusIsCutByTheServersTokenizerIfItHasOne) {
  const std::string path = ::testing::TempDir() + "/openai_backend_test_corpus";
  std::ofstream(path) << std::string(1000, 'x');
  const auto tokenize = [](const Request& request, Reply& reply) {
    if (request.path != "/tokenize") {
      return Count(request, reply);
    }
    const size_t size = Json::parse(request.body)["content"].get<std::string>().size();
    reply.Full(200, "application/json", Json{{"tokens", std::vector<int>(size, 5)}}.dump());
  };
  const std::string flags = "--num-prompts 1 --dataset-name corpus --dataset-path " + path;
  EXPECT_EQ(Load(tokenize, flags).code, 0);
  EXPECT_EQ(Json::parse(sent_.back().body)["prompt"], std::vector<int>(8, 5));
  const auto no_tokenizer = [](const Request& request, Reply& reply) {
    request.path == "/tokenize" ? reply.Full(404, "text/plain", "") : Count(request, reply);
  };
  const Outcome outcome = Load(no_tokenizer, flags);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(Json::parse(sent_.back().body)["prompt"], std::string(4 * 8, 'x'));
  EXPECT_THAT(outcome.err, HasSubstr("does not tokenize"));
}

TEST_F(OpenAiBackendTest, AReplayComparesTexts) {
  std::atomic<int> turn{0};
  const auto differ = [&](const Request&, Reply& reply) {
    reply.BeginEvents();
    reply.Event(CompletionChunk(absl::StrCat("answer ", turn++), "stop"));
    reply.Event("[DONE]");
    reply.Piece("");
  };
  EXPECT_EQ(Load(Count, "--num-prompts 3 --replay-check 2").code, 0);
  EXPECT_EQ(Load(differ, "--num-prompts 3 --replay-check 2").code, 3);
  EXPECT_EQ(result_["replay_mismatched"], 2);
}

TEST_F(OpenAiBackendTest, NobodyThereIsOneLine) {
  const Outcome outcome = RunQuire("load --backend openai --base-url http://127.0.0.1:1");
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("127.0.0.1 port 1"));
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1);
  EXPECT_THAT(RunQuire("load --backend openai --base-url ftp://x").err, HasSubstr("allowed: http://HOST:PORT"));
}

}  // namespace
}  // namespace quire::client
