// Flags: values, precedence of the sources, and errors that name the option.

#include "server/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "server/option_sources.h"

namespace quire {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A file that lives as long as the test.
class TomlFile {
 public:
  explicit TomlFile(const std::string& text)
      : path_(testing::TempDir() + "/" + testing::UnitTest::GetInstance()->current_test_info()->name() + ".toml") {
    std::ofstream(path_) << text;
  }
  ~TomlFile() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct Read {
  absl::Status status;
  Options options;
  std::vector<std::string> unknown;
};

Read ReadFrom(std::vector<std::string> arguments, std::vector<std::string> environment = {}) {
  Read read;
  read.status = ReadOptions(arguments, environment, read.options, read.unknown);
  return read;
}

std::string ErrorOf(std::vector<std::string> arguments, std::vector<std::string> environment = {}) {
  arguments.insert(arguments.begin(), {"--model", "m"});
  return std::string(ReadFrom(std::move(arguments), std::move(environment)).status.message());
}

TEST(FlagsTest, DefaultsAreThoseOfTheInterfacePage) {
  const Read read = ReadFrom({"--model", "m"});
  ASSERT_TRUE(read.status.ok()) << read.status;
  const Options& o = read.options;
  EXPECT_EQ(o.command, Subcommand::kServe);
  EXPECT_EQ(o.listen.ToString(), "127.0.0.1:50051");
  EXPECT_EQ(o.admin_listen.ToString(), "127.0.0.1:9400");
  EXPECT_EQ(o.engine.block_size, 16);
  EXPECT_FALSE(o.engine.kv_cache_bytes.has_value());
  EXPECT_EQ(o.engine.max_num_seqs, 128);
  EXPECT_EQ(o.engine.max_num_batched_tokens, 2048);
  EXPECT_EQ(o.engine.max_waiting_requests, 1024);
  EXPECT_EQ(o.engine.max_waiting_tokens, 4194304);
  EXPECT_EQ(o.drain_timeout, absl::Seconds(110));
  EXPECT_FALSE(o.default_timeout.has_value());
  EXPECT_EQ(o.rpc_limits.max_message_bytes, 16 << 20);
  EXPECT_EQ(o.rpc_limits.max_metadata_bytes, 8 << 10);
  EXPECT_EQ(o.rpc_limits.max_streams_per_connection, 1000);
  EXPECT_EQ(o.max_unsent_tokens, 4096u);
  EXPECT_EQ(o.write_timeout, absl::Seconds(30));
}

TEST(FlagsTest, CommandLineWinsOverEnvironmentOverFile) {
  const TomlFile file("block-size = 8\nmax-num-seqs = 7\nserved-model-name = \"from-file\"\n");
  const Read read = ReadFrom({"--model", "m", "--config", file.path(), "--block-size", "64"},
                             {"QUIRE_BLOCK_SIZE=32", "QUIRE_SERVED_MODEL_NAME=from-environment", "PATH=/bin"});
  ASSERT_TRUE(read.status.ok()) << read.status;
  EXPECT_EQ(read.options.engine.block_size, 64);
  EXPECT_EQ(read.options.served_model_name, "from-environment");
  EXPECT_EQ(read.options.engine.max_num_seqs, 7);
}

TEST(FlagsTest, TheFileMayBeNamedByTheEnvironment) {
  const TomlFile file("model = \"m\"\nenable-prefix-caching = false\n");
  const Read read = ReadFrom({}, {"QUIRE_CONFIG=" + file.path()});
  ASSERT_TRUE(read.status.ok()) << read.status;
  EXPECT_FALSE(read.options.engine.enable_prefix_caching);
}

TEST(FlagsTest, LastOfTwoOnTheCommandLineWins) {
  EXPECT_EQ(ReadFrom({"--model", "m", "--block-size", "8", "--block-size=32"}).options.engine.block_size, 32);
}

TEST(FlagsTest, SwitchesTakeEveryForm) {
  const auto caching = [](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--model", "m"});
    const Read read = ReadFrom(arguments);
    EXPECT_TRUE(read.status.ok()) << read.status;
    return read.options.engine.enable_prefix_caching;
  };
  EXPECT_TRUE(caching({"--enable-prefix-caching"}));
  EXPECT_TRUE(caching({"--enable-prefix-caching", "--insecure"}));
  EXPECT_FALSE(caching({"--no-enable-prefix-caching"}));
  EXPECT_FALSE(caching({"--enable-prefix-caching=false"}));
  EXPECT_FALSE(caching({"--enable-prefix-caching", "false"}));
}

TEST(FlagsTest, CacheTypesAreElementsOrCodes) {
  const auto engine = [](const std::string& value) {
    return ReadFrom({"--model", "m", "--kv-cache-dtype", "float16", "--kv-cache-dtype", value}).options.engine;
  };
  EXPECT_EQ(engine("bfloat16").kv_cache_dtype, DType::kBFloat16);
  EXPECT_EQ(engine("auto").kv_cache_dtype, std::nullopt);
  EXPECT_EQ(engine("auto").kv_quantization, KvQuantization::kNone);
  EXPECT_EQ(engine("int8").kv_quantization, KvQuantization::kInt8);
  EXPECT_EQ(engine("int8").kv_cache_dtype, std::nullopt);
  EXPECT_EQ(engine("int4").kv_quantization, KvQuantization::kInt4);
  EXPECT_EQ(engine("fp8_e4m3").kv_quantization, KvQuantization::kFp8E4M3);
}

TEST(FlagsTest, EveryWrongValueIsRefusedByTheOptionsName) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"block-size", "0"},
      {"block-size", "seven"},
      {"max-num-seqs", "-1"},
      {"max-num-seqs", "0"},
      {"dtype", "int3"},
      {"backend", "abacus"},
      {"kv-cache-memory", "-1"},
      {"kv-cache-memory", "12parsecs"},
      {"priority-aging", "0s"},
      {"tenant-weights", "gold"},
      {"tenant-weights", "gold=0"},
      {"tenant-weights", "gold=1,gold=2"},
      {"max-tenants", "0"},
      {"max-waiting-requests-per-tenant", "0"},
      {"scheduling-policy", "whim"},
      {"drain-timeout", "soon"},
      {"log-level", "shout"},
      {"listen", "50051"},
      {"listen", "127.0.0.1:70000"},
      {"kv-cache-dtype", "int3"},
      {"quantization", "int3"},
      {"deterministic", "perhaps"},
      {"prefill-attention", "tma"},
      {"default-timeout", "0s"},
      {"max-message-bytes", "2GiB"},
      {"max-metadata-bytes", "10"},
      {"max-streams-per-connection", "0"},
      {"max-call-rate", "0"},
      {"max-unsent-tokens", "0"},
      {"write-timeout", "0s"},
      {"step-timeout", "0s"},
      {"cpu-bind", "3-1"},
      {"gpu-memory-utilization", "1.5"},
      {"tls-cert", "x.pem"},
      {"tls-key", "x.pem"},
      {"tls-client-ca", "x.pem"},
      {"health-listen", "127.0.0.1"},
      {"threads", "0"},
      {"load-format", "onnx"},
      {"generation-config", "maybe"},
  };
  for (const auto& [name, value] : cases) {
    EXPECT_THAT(ErrorOf({"--" + name + "=" + value}), HasSubstr("--" + name)) << value;
  }
}

TEST(FlagsTest, MistakesAreNamedWithTheirOrigin) {
  EXPECT_THAT(ErrorOf({"--no-such-flag"}), HasSubstr("--no-such-flag"));
  EXPECT_THAT(ErrorOf({"--block-size"}), HasSubstr("--block-size needs a value"));
  EXPECT_THAT(ErrorOf({"stray"}), HasSubstr("\"stray\""));
  EXPECT_THAT(ErrorOf({}, {"QUIRE_BLOCK_SIZE=x"}), HasSubstr("--block-size (from QUIRE_BLOCK_SIZE)"));
  const TomlFile unknown("no-such-key = 1\n");
  EXPECT_THAT(ErrorOf({"--config", unknown.path()}), HasSubstr("no-such-key"));
  EXPECT_THAT(ErrorOf({"--config", "/nonexistent.toml"}), HasSubstr("--config /nonexistent.toml: "));
  EXPECT_THAT(std::string(ReadFrom({}).status.message()), HasSubstr("--model is required"));
  EXPECT_THAT(std::string(ReadFrom({"dance"}).status.message()), HasSubstr("serve, plan, tokenize"));
}

TEST(FlagsTest, VariablesThatAreNoOptionAreToldAndDoNoHarm) {
  const Read read = ReadFrom({"--model", "m"}, {"QUIRE_SERVICE_HOST=10.0.0.1", "QUIRE_BLOCK_SIZE="});
  EXPECT_TRUE(read.status.ok()) << read.status;
  EXPECT_THAT(read.unknown, ElementsAre("QUIRE_SERVICE_HOST"));
}

TEST(FlagsTest, BeyondLoopbackNeedsToBeSaid) {
  EXPECT_THAT(ErrorOf({"--listen", "0.0.0.0:0"}), HasSubstr("--insecure"));
  EXPECT_EQ(ErrorOf({"--listen", "0.0.0.0:0", "--insecure"}), "");
  EXPECT_EQ(ErrorOf({"--listen", "[::1]:0"}), "");
  EXPECT_THAT(ErrorOf({"--listen", "127.evil.example:0"}), HasSubstr("--insecure"));
}

TEST(FlagsTest, TheLogFormatHoldsForErrorsToo) {
  EXPECT_EQ(ReadFrom({"--block-size", "x", "--log-format", "json"}).options.log_format, LogFormat::kJson);
}

TEST(FlagsTest, HelpTellsOfEveryFlag) {
  const std::string help = HelpText();
  for (const Flag& flag : AllFlags()) EXPECT_THAT(help, HasSubstr("--" + std::string(flag.name) + " "));
}

TEST(FlagValuesTest, BytesAndDurations) {
  EXPECT_EQ(*ParseBytes("4096"), 4096u);
  EXPECT_EQ(*ParseBytes("512MiB"), uint64_t{512} << 20);
  EXPECT_EQ(*ParseBytes("1.5 GiB"), uint64_t{3} << 29);
  EXPECT_EQ(*ParseBytes("2GB"), 2000000000u);
  for (const char* bad : {"", "MiB", "-1", "1e3", "1 parsec", "99999999999GiB"})
    EXPECT_FALSE(ParseBytes(bad).ok()) << bad;
  EXPECT_EQ(*ParseDuration("250ms"), absl::Milliseconds(250));
  EXPECT_EQ(*ParseDuration("1.5s"), absl::Milliseconds(1500));
  EXPECT_EQ(*ParseDuration("2m"), absl::Minutes(2));
  EXPECT_EQ(*ParseDuration("0"), absl::ZeroDuration());
  for (const char* bad : {"", "s", "5", "-1s", "soon", "1e9h"}) EXPECT_FALSE(ParseDuration(bad).ok()) << bad;
}

TEST(FlagValuesTest, CpuListsAndAddresses) {
  EXPECT_THAT(*ParseCpuList("0,2-4"), ElementsAre(0, 2, 3, 4));
  for (const char* bad : {"", "a", "1-", "4-2", "1,,2", "-1"}) EXPECT_FALSE(ParseCpuList(bad).ok()) << bad;
  EXPECT_EQ(ParseListenAddress("[::1]:80")->host, "::1");
  for (const char* bad : {"", ":80", "host", "::1:80", "[]:80", "host:", "host:x"})
    EXPECT_FALSE(ParseListenAddress(bad).ok()) << bad;
}

// README.md's table of formats has the kinds that the flag takes, and no other.
TEST(Readme, QuantizationsAreThoseOfTheFlag) {
  std::ifstream file(QUIRE_SOURCE_DIR "/README.md");
  std::string row, kinds;
  while (std::getline(file, row) && row.rfind("| `--quantization` |", 0) != 0) {
  }
  row = row.substr(std::string("| `--quantization` |").size());
  for (size_t at = row.find('`'); at != std::string::npos; at = row.find('`', at)) {
    const size_t end = row.find('`', at + 1);
    kinds += (kinds.empty() ? "" : ", ") + row.substr(at + 1, end - at - 1);
    at = end + 1;
  }
  EXPECT_THAT(ErrorOf({"--quantization=no-such"}), testing::EndsWith("is not one of " + kinds));
}

}  // namespace
}  // namespace quire
