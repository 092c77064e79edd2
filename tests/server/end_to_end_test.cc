// The two programs together on the bundled model: what a user does, from the ready line to the drain.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/server/process.h"
#include "tests/server/quired.h"

namespace quire {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;
using Json = nlohmann::json;

constexpr char kPrompt[] = "Once upon a time there was a little";

struct Finished {
  int code;
  std::string out, errors;
};

Finished RunToEnd(std::vector<std::string> arguments) {
  Process process(std::move(arguments));
  Finished finished;
  finished.out = process.ReadAll();
  finished.code = process.Wait();
  finished.errors = process.ReadErrors();
  return finished;
}

size_t CountOf(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(EndToEndTest, GeneratesTextAndJsonAndCountsThem) {
  Quired quired;
  EXPECT_EQ(quired.model(), "tales-5m");
  EXPECT_THAT(quired.Get("/readyz"), StartsWith("HTTP/1.1 200"));

  const Finished text = RunToEnd(
      quired.Client({"generate", "--prompt", kPrompt, "--max-tokens", "24", "--temperature", "0", "--ignore-eos"}));
  EXPECT_EQ(text.code, 0) << text.errors;
  EXPECT_GT(text.out.size(), 24u);

  const Finished lines = RunToEnd(quired.Client(
      {"generate", "--prompt", kPrompt, "--max-tokens", "24", "--temperature", "0", "--ignore-eos", "--json"}));
  EXPECT_EQ(lines.code, 0) << lines.errors;
  std::string joined;
  size_t ids = 0;
  Json last;
  std::istringstream stream(lines.out);
  for (std::string line; std::getline(stream, line);) {
    last = Json::parse(line);
    if (last.contains("delta")) joined += last["delta"].value("text", "");
    if (last.contains("delta")) ids += last["delta"]["token_ids"].size();
  }
  EXPECT_EQ(ids, 24u);
  EXPECT_EQ(last["finished"]["reason"], "FINISH_REASON_LENGTH");
  EXPECT_EQ(last["finished"]["usage"]["completion_tokens"], 24);
  EXPECT_THAT(text.out, StartsWith(joined));

  quired.AwaitQuiet();
  EXPECT_EQ(quired.Metric("quire_requests_total{ending=\"finished\"}"), 2);
  EXPECT_EQ(quired.Metric("quire_tokens_delivered_total"), 48);
  EXPECT_EQ(quired.Metric("vllm:generation_tokens_total"), 48);
}

// gRPC's own listener would be closed for good.
TEST(EndToEndTest, MoreConnectionsThanDescriptorsCloseItToNobodyForGood) {
  Quired quired({}, "127.0.0.1:0", /*max_descriptors=*/64);
  const auto port = static_cast<uint16_t>(std::stoi(quired.target().substr(quired.target().rfind(':') + 1)));
  std::vector<int> connections;
  for (int i = 0; i < 100; ++i) connections.push_back(ConnectTo(port));
  char byte;
  EXPECT_LE(recv(connections.back(), &byte, 1, 0), 0) << "was not refused";
  EXPECT_THAT(quired.Get("/readyz"), StartsWith("HTTP/1.1 200"));
  for (const int connection : connections) close(connection);
  const Finished text = RunToEnd(quired.Client({"generate", "--prompt", kPrompt, "--max-tokens", "4"}));
  EXPECT_EQ(text.code, 0) << text.errors;
}

TEST(EndToEndTest, ARefusedRequestSaysWhyAndTheDaemonServesOn) {
  Quired quired;
  const Finished refused = RunToEnd(quired.Client({"generate", "--prompt", "x", "--temperature", "-1"}));
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.errors, AllOf(HasSubstr("INVALID_ARGUMENT"), HasSubstr("sampling.temperature")));
  EXPECT_EQ(RunToEnd(quired.Client({"generate", "--prompt", kPrompt, "--max-tokens", "2"})).code, 0);
  EXPECT_EQ(quired.Metric("quire_requests_total{ending=\"rejected\"}"), 1);
}

TEST(EndToEndTest, AnInterruptedClientFreesItsBlocks) {
  Quired quired;
  Process client(quired.Client({"generate", "--prompt", kPrompt, "--temperature", "0", "--ignore-eos", "--json"}));
  EXPECT_THAT(client.ReadLine(), HasSubstr("accepted"));
  client.Signal(SIGINT);
  EXPECT_NE(client.Wait(), 0);
  quired.AwaitQuiet();
  EXPECT_EQ(quired.Metric("quire_requests_total{ending=\"cancelled\"}"), 1);
}

TEST(EndToEndTest, SigtermFinishesWhatRunsAndExitsWithZero) {
  Quired quired;
  Process client(quired.Client(
      {"generate", "--prompt", kPrompt, "--max-tokens", "400", "--temperature", "0", "--ignore-eos", "--json"}));
  EXPECT_THAT(client.ReadLine(), HasSubstr("accepted"));
  quired.process().Signal(SIGTERM);
  const std::string rest = client.ReadAll();
  EXPECT_EQ(client.Wait(), 0);
  EXPECT_THAT(rest, HasSubstr("FINISH_REASON_LENGTH"));
  EXPECT_EQ(quired.process().Wait(), 0);
  EXPECT_EQ(CountOf(quired.process().ReadErrors(), "[error]"), 0u);
}

TEST(EndToEndTest, DrainTimeoutCutsStreamsAndExitsWithZero) {
  Quired quired({"--drain-timeout", "1ms"});
  Process client(quired.Client({"generate", "--prompt", kPrompt, "--temperature", "0", "--ignore-eos", "--json"}));
  EXPECT_THAT(client.ReadLine(), HasSubstr("accepted"));
  quired.process().Signal(SIGTERM);
  client.ReadAll();
  EXPECT_EQ(client.Wait(), 2);
  EXPECT_THAT(client.ReadErrors(), HasSubstr("UNAVAILABLE"));
  EXPECT_EQ(quired.process().Wait(), 0);
}

TEST(EndToEndTest, ASecondSignalStopsAtOnce) {
  Quired quired;
  Process client(quired.Client({"generate", "--prompt", kPrompt, "--temperature", "0", "--ignore-eos", "--json"}));
  EXPECT_THAT(client.ReadLine(), HasSubstr("accepted"));
  quired.process().Signal(SIGTERM);
  while (quired.Get("/readyz").find("503") == std::string::npos) {
  }
  quired.process().Signal(SIGINT);
  EXPECT_EQ(quired.process().Wait(), 0);
}

TEST(EndToEndTest, ASignalWhileAModelLoadsEndsTheProcessAtOnce) {
  if (std::filesystem::read_symlink("/proc/self") != std::to_string(getpid()))
    GTEST_SKIP() << "/proc is of another PID namespace: it does not say which signals a child blocks";
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("end_to_end_test." + std::to_string(getpid()));
  std::filesystem::create_directory(folder);
  std::filesystem::copy_file(MODEL_PATH "/tokenizer.json", folder / "tokenizer.json");
  Json config = Json::parse(std::ifstream(MODEL_PATH "/config.json"));
  config["hidden_size"] = 1024;  // a hundred million weights, of which the first tensor will do
  config["intermediate_size"] = 4096;
  std::ofstream(folder / "config.json") << config;
  Process process({QUIRED_PATH, "--model", folder, "--load-format", "dummy", "--listen", "127.0.0.1:0",
                   "--admin-listen", "127.0.0.1:0", "--kv-cache-memory", "64MiB"});
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!process.Blocks(SIGTERM)) ASSERT_LT(std::chrono::steady_clock::now(), give_up) << "it takes no signals";
  process.Signal(SIGTERM);
  EXPECT_EQ(process.ReadAll(), "") << "it was ready although it had been told to stop";
  EXPECT_EQ(process.Wait(), 0);
  EXPECT_THAT(process.ReadErrors(), HasSubstr("stopped while loading"));
  std::filesystem::remove_all(folder);
}

TEST(EndToEndTest, AnOperatorsMistakeIsOneLineAndExitCodeOne) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--model", MODEL_PATH, "--no-such-flag"}, "--no-such-flag"},
      {{"--model", MODEL_PATH, "--block-size", "seven"}, "--block-size"},
      {{"--model", "/nonexistent/model"}, "/nonexistent/model"},
      {{"--model", MODEL_PATH, "--kv-cache-memory", "1KiB", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"},
       "--kv-cache-memory"},
      {{}, "--model"},
  };
  for (const auto& [flags, name] : cases) {
    std::vector<std::string> arguments = {QUIRED_PATH};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const Finished finished = RunToEnd(arguments);
    EXPECT_EQ(finished.code, 1) << name;
    EXPECT_EQ(CountOf(finished.errors, "[error]"), 1u) << finished.errors;
    EXPECT_THAT(finished.errors, HasSubstr(name));
    EXPECT_THAT(finished.out, IsEmpty());
  }
}

TEST(EndToEndTest, ATakenPortIsRefused) {
  Quired quired;
  const Finished second =
      RunToEnd({QUIRED_PATH, "--model", MODEL_PATH, "--listen", quired.target(), "--admin-listen", "127.0.0.1:0"});
  EXPECT_EQ(second.code, 1);
  EXPECT_EQ(CountOf(second.errors, "[error]"), 1u) << second.errors;
  EXPECT_THAT(second.errors, AllOf(HasSubstr("--listen " + quired.target()), HasSubstr("in use")));
}

TEST(EndToEndTest, PlanNeedsNoDaemon) {
  const Finished plan = RunToEnd({QUIRED_PATH, "plan", "--model", MODEL_PATH, "--kv-cache-memory", "64MiB", "--json"});
  EXPECT_EQ(plan.code, 0) << plan.errors;
  const Json json = Json::parse(plan.out);
  EXPECT_EQ(json["kv_bytes_per_token"],
            2 * json["layers"].get<int>() * json["kv_heads"].get<int>() * json["head_dim"].get<int>() * 2);
  EXPECT_EQ(json["num_blocks"], (64 << 20) / (json["kv_bytes_per_token"].get<int>() * 16));
}

TEST(EndToEndTest, PlanForADeviceNeedsNone) {
  const std::vector<std::string> plan = {QUIRED_PATH, "plan", "--model", MODEL_PATH, "--device-memory", "2GiB"};
  std::vector<std::string> for_cuda = plan;
  for_cuda.insert(for_cuda.end(), {"--backend", "cuda", "--kv-cache-dtype", "fp8_e4m3", "--json"});
  const Finished planned = RunToEnd(for_cuda);
  EXPECT_EQ(planned.code, 0) << planned.errors;
  EXPECT_GT(Json::parse(planned.out)["num_blocks"], 1000);
  const Finished unclear = RunToEnd(plan);
  EXPECT_EQ(unclear.code, 1);
  EXPECT_THAT(unclear.errors, HasSubstr("--device-memory: goes with `quired plan --backend cuda` alone"));
}

TEST(EndToEndTest, JsonLogsAreObjectsAndTellOfAFinishedRequestOnce) {
  Quired quired({"--log-format", "json"});
  EXPECT_EQ(RunToEnd(quired.Client({"generate", "--prompt", kPrompt, "--max-tokens", "3"})).code, 0);
  quired.process().Signal(SIGTERM);
  EXPECT_EQ(quired.process().Wait(), 0);
  const std::string errors = quired.process().ReadErrors();
  std::istringstream stream(errors);
  size_t told = 0;
  for (std::string line; std::getline(stream, line);) {
    const Json json = Json::parse(line);
    EXPECT_TRUE(json.contains("time") && json.contains("level") && json.contains("message")) << line;
    told += json.contains("request_id") && json["completion_tokens"] == 3;
  }
  EXPECT_EQ(told, 1u) << errors;
  EXPECT_EQ(errors.find(kPrompt), std::string::npos) << "the prompt stands in the log";
}

// `quire load` with `flags` against `quired`: its result.
Json Load(const Quired& quired, std::vector<std::string> flags) {
  const std::string name = absl::StrCat("load_", getpid(), ".json");
  flags.insert(flags.begin(), "load");
  flags.insert(flags.end(), {"--save-result", "--save-detailed", "--result-dir", ::testing::TempDir(),
                             "--result-filename", name, "--request-id-prefix", "r"});
  const Finished finished = RunToEnd(quired.Client(std::move(flags)));
  EXPECT_EQ(finished.code, 0) << finished.errors;
  std::ifstream file(::testing::TempDir() + "/" + name);
  return Json::parse(file, nullptr, /*allow_exceptions=*/false);
}

// What the daemon's log says of the requests that ended, by id.
std::map<std::string, Json> EndedIn(const std::string& log) {
  std::map<std::string, Json> ended;
  std::istringstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    const Json json = Json::parse(line);
    if (json.contains("request_id")) ended[json["request_id"]] = json;
  }
  return ended;
}

// A trace of each format: when its requests were sent, and what the daemon saw of them.
TEST(EndToEndTest, LoadReplaysTracesOfEveryFormatAtTheirTimesAndLengths) {
  const std::vector<double> times = {0, 0.05, 0.05, 0.3};
  const std::vector<uint32_t> input_lens = {600, 7, 560, 33}, output_lens = {3, 12, 1, 5};
  std::string azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
  std::string burst_gpt = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n", mooncake;
  for (size_t i = 0; i < times.size(); ++i) {
    const std::string lens = absl::StrCat(input_lens[i], ",", output_lens[i]);
    // Ten times as slow as it is replayed.
    absl::StrAppendFormat(&azure, "2023-11-16 18:15:%010.7f,%s\n", 46.5 + 10 * times[i], lens);
    absl::StrAppend(&burst_gpt, 5 + 10 * times[i], ",ChatGPT,", lens, ",0,API log\n");
    mooncake += Json{{"timestamp", 27000 + 10000 * times[i]},
                     {"input_length", input_lens[i]},
                     {"output_length", output_lens[i]},
                     {"hash_ids", i % 2 == 0 ? Json{5, 6 + i} : Json{90 + i}}}
                    .dump() +
                "\n";
  }
  for (const auto& [format, trace] : {std::pair{"azure", azure}, {"burst_gpt", burst_gpt}, {"mooncake", mooncake}}) {
    SCOPED_TRACE(format);
    const std::string path = absl::StrCat(::testing::TempDir(), "/", format, "_", getpid());
    std::ofstream(path) << trace;
    Quired quired({"--log-format", "json"});
    const Json result = Load(quired, {"--dataset-name", "trace", "--dataset-path", path, "--trace-speedup", "10",
                                      "--num-prompts", absl::StrCat(times.size())});
    EXPECT_EQ(result["completed"], times.size());
    for (size_t i = 0; i < times.size(); ++i) {
      EXPECT_GE(result["start_times"][i].get<double>(), times[i] - 1e-6);
      EXPECT_LT(result["start_times"][i].get<double>(), times[i] + 10) << "a busy machine is late, not by so much";
    }
    quired.process().Signal(SIGTERM);
    EXPECT_EQ(quired.process().Wait(), 0);
    std::map<std::string, Json> ended = EndedIn(quired.process().ReadErrors());
    ASSERT_EQ(ended.size(), times.size());
    for (size_t i = 0; i < times.size(); ++i) {
      const Json& request = ended[absl::StrCat("r", i)];
      EXPECT_EQ(request["prompt_tokens"], input_lens[i]);
      EXPECT_EQ(request["completion_tokens"], output_lens[i]);
      EXPECT_EQ(request["reason"], "length");
    }
  }
}

// The k-th of n requests follows the one before after 1 / rate, whose rate has gone k / (n - 1) of its way.
TEST(EndToEndTest, LoadRampsItsRateUp) {
  Quired quired;
  constexpr int kCount = 21;
  const Json result = Load(quired, {"--num-prompts", absl::StrCat(kCount), "--ramp-up-strategy", "linear",
                                    "--ramp-up-start-rps", "20", "--ramp-up-end-rps", "220", "--burstiness", "inf",
                                    "--random-input-len", "8", "--random-output-len", "2"});
  EXPECT_EQ(result["completed"], kCount);
  double due = 0;
  for (int i = 0; i < kCount; ++i) {
    due += 1.0 / (20 + 200.0 * i / (kCount - 1));
    EXPECT_GE(result["start_times"][i].get<double>(), due - 1e-6) << i;
  }
  EXPECT_LT(result["duration"].get<double>(), 10) << "21 / 20 s at the first rate";
}

}  // namespace
}  // namespace quire
