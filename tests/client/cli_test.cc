#include "client/cli.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/client/fake_daemon.h"

namespace quire::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class CliTest : public ::testing::Test {
 protected:
  Outcome Run(const std::string& command, const std::string& flags, const std::vector<std::string>& more = {},
              const std::string& stdin_text = "") {
    return RunQuire(command + " --target " + daemon_.target() + " " + flags, more, stdin_text);
  }

  FakeDaemon daemon_;
};

TEST_F(CliTest, GenerateStreamsTheTextAndSumsUpOnOneLine) {
  const Outcome outcome = Run("generate", "--max-tokens 4 --seed 9 --prompt", {"a b"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out, " 0 1 2 3\n");
  EXPECT_THAT(outcome.err, StartsWith("quire: 3 prompt tokens (0 cached), 4 tokens in "));
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1);
}

TEST_F(CliTest, GeneratePutsFlagsIntoTheirFieldsAndLeavesTheRestAbsent) {
  Run("generate",
      "--prompt-ids 1,2 --temperature 0 --top-k 5 --top-p 0.5 --min-p 0.1 --stop-token-ids 3,4 --ignore-eos "
      "--include-stop "
      "--min-tokens 2 --logprobs 0 --priority -1 --tenant t --cache-salt s --max-queue-time 1500ms --logit-bias 7=-1.5 "
      "--n 2",
      {"--stop", "\n\n", "--stop", "--"});
  ASSERT_EQ(daemon_.requests().size(), 1u);
  const v1::GenerateRequest request = daemon_.requests()[0];
  EXPECT_THAT(request.tokens().ids(), ElementsAre(1, 2));
  EXPECT_TRUE(request.sampling().has_temperature());
  EXPECT_EQ(request.sampling().temperature(), 0);
  EXPECT_EQ(request.sampling().top_k(), 5u);
  EXPECT_EQ(request.sampling().logit_bias().at(7), -1.5f);
  EXPECT_FALSE(request.sampling().has_seed());
  EXPECT_FALSE(request.sampling().has_repetition_penalty());
  EXPECT_THAT(request.stopping().stop(), ElementsAre("\n\n", "--"));
  EXPECT_THAT(request.stopping().stop_token_ids(), ElementsAre(3, 4));
  EXPECT_FALSE(request.stopping().has_max_tokens());
  EXPECT_TRUE(request.stopping().ignore_eos());
  EXPECT_TRUE(request.output().has_logprobs());
  EXPECT_FALSE(request.output().has_prompt_logprobs());
  EXPECT_EQ(request.scheduling().priority(), -1);
  EXPECT_EQ(request.scheduling().max_queue_time().seconds(), 1);
  EXPECT_EQ(request.scheduling().max_queue_time().nanos(), 500'000'000);
  EXPECT_EQ(request.cache().salt(), "s");
  EXPECT_EQ(request.n(), 2u);
}

TEST_F(CliTest, GenerateTakesThePromptFromStandardInputByteForByte) {
  Run("generate", "", {}, "two\nlines\n");
  EXPECT_EQ(daemon_.requests()[0].text(), "two\nlines\n");
}

TEST_F(CliTest, GenerateJsonIsOneResponseALineWithTheNamesOfTheProto) {
  const Outcome outcome = Run("generate", "--prompt x --max-tokens 2 --json");
  EXPECT_EQ(outcome.code, 0);
  std::istringstream lines(outcome.out);
  std::vector<nlohmann::json> parsed;
  for (std::string line; std::getline(lines, line);) {
    parsed.push_back(nlohmann::json::parse(line));
  }
  ASSERT_EQ(parsed.size(), 4u);
  EXPECT_EQ(parsed[0]["accepted"]["prompt_tokens"], 1);
  EXPECT_EQ(parsed[2]["delta"]["text"], " 1");
  EXPECT_EQ(parsed[2]["delta"]["token_ids"], nlohmann::json({1}));
  EXPECT_EQ(parsed[3]["finished"]["usage"]["completion_tokens"], 2);
  EXPECT_EQ(parsed[3]["finished"]["reason"], "FINISH_REASON_LENGTH");
}

TEST_F(CliTest, GenerateShowsSeveralOutputsOneAfterTheOther) {
  EXPECT_EQ(Run("generate", "--prompt x --max-tokens 2 --n 2").out, "[0]  0 1\n[1]  0 1\n");
}

TEST_F(CliTest, ARefusedRequestSaysCodeMessageAndField) {
  daemon_.SetGenerate([](auto*, const auto&, auto*) { return FakeDaemon::BadField("sampling.temperature", "is -1"); });
  const Outcome outcome = Run("generate", "--prompt x --temperature -1");
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(outcome.err, "quire: INVALID_ARGUMENT: the request is not valid (sampling.temperature: is -1)\n");
}

TEST_F(CliTest, AStreamThatBreaksKeepsItsTextAndFails) {
  daemon_.SetGenerate([](auto* context, const auto& request, auto* writer) {
    FakeDaemon::Count(context, request, writer);
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
  });
  const Outcome outcome = Run("generate", "--prompt x");
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.out, " 0 1 2\n");
  EXPECT_EQ(outcome.err, "quire: UNAVAILABLE: draining\n");
}

TEST_F(CliTest, ASeedIsNeitherNegativeNorCut) {
  for (const char* seed : {"-1", "18446744073709551616", "1.5", "x"}) {
    for (const std::string command : {"generate --prompt x", "chat", "load"}) {
      const Outcome outcome = RunQuire(command + " --target " + daemon_.target() + " --seed " + seed);
      EXPECT_EQ(outcome.code, 1) << command << " " << seed;
      EXPECT_THAT(outcome.err, HasSubstr("is no seed; allowed: a whole number from 0 to 18446744073709551615"));
    }
  }
  EXPECT_EQ(Run("generate", "--prompt x --seed 18446744073709551615").code, 0);
  EXPECT_EQ(daemon_.requests()[0].sampling().seed(), UINT64_MAX);
}

TEST_F(CliTest, AnOutputThatCannotBeWrittenIsAnError) {
  std::istringstream in;
  std::ostringstream err;
  std::ofstream full("/dev/full");
  Io io{in, full, err};
  const std::vector<const char*> argv = {"quire", "generate", "--target", daemon_.target().c_str(), "--prompt", "x"};
  EXPECT_EQ(RunCli(static_cast<int>(argv.size()), argv.data(), io), 1);
  EXPECT_THAT(err.str(), HasSubstr("quire: cannot write to standard output\n"));
}

TEST(Cli, APortBeyond65535IsRefusedRatherThanWrapped) {
  const Outcome outcome = RunQuire("status --target 127.0.0.1:99999");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.err, "quire: --target '127.0.0.1:99999' has port 99999; allowed: to 65535\n");
}

TEST_F(CliTest, TheTimeoutIsTheDeadlineOfTheCall) {
  daemon_.SetGenerate([](grpc::ServerContext* context, const auto&, auto*) {
    while (!context->IsCancelled()) {
      usleep(1000);
    }
    return grpc::Status::CANCELLED;
  });
  const Outcome outcome = Run("generate", "--prompt x --timeout 50ms");
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, StartsWith("quire: DEADLINE_EXCEEDED: "));
}

TEST_F(CliTest, AnInterruptCancelsTheCall) {
  daemon_.SetGenerate([](grpc::ServerContext* context, const auto& request, auto* writer) {
    FakeDaemon::Count(context, request, writer);
    kill(getpid(), SIGINT);
    while (!context->IsCancelled()) {
      usleep(1000);
    }
    return grpc::Status::CANCELLED;
  });
  const Outcome outcome = Run("generate", "--prompt x");
  EXPECT_EQ(outcome.code, 130);
  EXPECT_THAT(outcome.err, StartsWith("quire: CANCELLED: "));
}

TEST_F(CliTest, TheTokenFilesFirstTokenIsSent) {
  const std::string path = ::testing::TempDir() + "/cli_test_tokens";
  std::ofstream(path) << "\n# comment\nsecret tenant=a\nother\n";
  EXPECT_EQ(Run("generate", "--prompt x --token-file " + path).code, 0);
  EXPECT_EQ(daemon_.authorization(), "Bearer secret");
}

TEST_F(CliTest, TokenizePrintsAJsonArray) {
  EXPECT_EQ(Run("tokenize", "", {}, "ab").out, "[256, 97, 98]\n");
  EXPECT_EQ(Run("tokenize", "--no-special --prompt ab").out, "[97, 98]\n");
}

TEST_F(CliTest, DetokenizeTakesFlagOrStandardInput) {
  EXPECT_EQ(Run("detokenize", "--ids 97,98").out, "ab\n");
  EXPECT_EQ(Run("detokenize", "", {}, "[97, 98]\n").out, "ab\n");
  const Outcome outcome = Run("detokenize", "--ids 1,999");
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("(ids: is out of range)"));
}

TEST_F(CliTest, AnotherModelThanTheServedOneIsNotFound) {
  EXPECT_EQ(Run("tokenize", "--prompt a --model tales").code, 0);
  const Outcome outcome = Run("tokenize", "--prompt a --model other");
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("NOT_FOUND: model 'other' is not served here; 'tales' is"));
}

TEST_F(CliTest, StatusHasModelAndHealthAndSaysThatTheLoadIsMissing) {
  const Outcome outcome = Run("status", "--json --admin 127.0.0.1:1");
  EXPECT_EQ(outcome.code, 0);
  const auto json = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(json["model"]["name"], "tales");
  EXPECT_EQ(json["model"]["num_blocks"], 64);
  EXPECT_EQ(json["health"], "SERVING");
  EXPECT_TRUE(json["load"].is_null());
  EXPECT_THAT(Run("status", "--admin 127.0.0.1:1").out, HasSubstr("load     n/a (http://127.0.0.1:1/metrics: "));
}

TEST_F(CliTest, ChatSendsTheConversationSoFar) {
  EXPECT_EQ(Run("chat", "--system Be --max-tokens 1", {}, "hello\nagain\n").out, " 0\n 0\n");
  const std::vector<v1::GenerateRequest> requests = daemon_.requests();
  ASSERT_EQ(requests.size(), 2u);
  std::string said;
  for (const v1::ChatMessage& message : requests[1].chat().messages()) {
    said += message.role() + ":" + message.content() + "|";
  }
  EXPECT_EQ(said, "system:Be|user:hello|assistant: 0|user:again|");
}

TEST_F(CliTest, ChatShowsThatTheServerCannot) {
  daemon_.SetGenerate(
      [](auto*, const auto&, auto*) { return grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "no chat"); });
  const Outcome outcome = Run("chat", "", {}, "hello\n");
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.err, "quire: UNIMPLEMENTED: no chat\n");
}

TEST(Cli, UsageErrorsAreOneLineAndCodeOne) {
  for (const char* flags :
       {"", "sing", "generate --no-such-flag", "generate --temperature warm", "generate --top-k -1",
        "generate --prompt a --prompt-ids 1", "generate --timeout 5", "generate --prompt-ids a",
        "generate --prompt a --target nowhere", "generate --prompt a --tls-cert x",
        "generate --prompt-file /nonexistent/x", "generate --json-object --regex a", "load --backend vllm",
        "load --dataset-name corpus", "tokenize --prompt a --token-file /nonexistent/x"}) {
    const Outcome outcome = RunQuire(flags);
    EXPECT_EQ(outcome.code, 1) << flags;
    EXPECT_THAT(outcome.err, StartsWith("quire: ")) << flags;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }
}

TEST(Cli, TextThatIsNotUtf8IsRefusedBeforeItTravels) {
  EXPECT_THAT(RunQuire("generate", {"--prompt", "\xFF"}).err, HasSubstr("argument 3 is not UTF-8: byte 0"));
  EXPECT_THAT(RunQuire("generate", {}, "a\xFF").err, HasSubstr("the prompt is not UTF-8: byte 1"));
}

TEST(Cli, NobodyListeningIsKnownAtOnce) {
  for (const char* command : {"generate --prompt x", "tokenize --prompt x", "status", "load --num-prompts 1"}) {
    const Outcome outcome = RunQuire(std::string(command) + " --target 127.0.0.1:1");
    EXPECT_EQ(outcome.code, 2) << command;
    EXPECT_THAT(outcome.err, StartsWith("quire: UNAVAILABLE: ")) << command;
  }
}

TEST(Cli, HelpSaysEveryFlag) {
  const Outcome outcome = RunQuire("generate --help");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.out, HasSubstr("--temperature"));
  EXPECT_THAT(outcome.out, HasSubstr("default 127.0.0.1:50051"));
}

}  // namespace
}  // namespace quire::client
