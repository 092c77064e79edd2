// quired as a process of its own, for tests.

#ifndef QUIRE_TESTS_SERVER_QUIRED_H_
#define QUIRE_TESTS_SERVER_QUIRED_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include "tests/server/http_get.h"
#include "tests/server/process.h"

namespace quire {

// A running daemon on the bundled model; `listen`: for gRPC, else a free port; `max_descriptors`: RLIMIT_NOFILE, else
// the one of this process.
class Quired {
 public:
  explicit Quired(std::vector<std::string> flags = {}, const std::string& listen = "127.0.0.1:0",
                  int max_descriptors = 0)
      : process_(Limited(Arguments(std::move(flags), listen), max_descriptors)) {
    ready_line_ = process_.ReadLine();
    std::smatch match;
    static const std::regex kReady(R"(^quired ready grpc=(\S+) admin=127\.0\.0\.1:(\d+) model=(\S+)$)");
    if (std::regex_match(ready_line_, match, kReady)) {
      target_ = match[1];
      admin_port_ = static_cast<uint16_t>(std::stoi(match[2]));
      model_ = match[3];
    } else {
      ADD_FAILURE() << "not ready: " << ready_line_ << process_.ReadErrors();
    }
  }

  Process& process() { return process_; }
  const std::string& target() const { return target_; }
  const std::string& model() const { return model_; }

  // Arguments of a client command for this daemon.
  std::vector<std::string> Client(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), QUIRE_PATH);
    arguments.insert(arguments.end(), {"--target", target_});
    return arguments;
  }

  // The body of an admin page, its status line before it.
  std::string Get(const std::string& path) const { return HttpGet(admin_port_, path); }

  // The value of a series, as /metrics prints it.
  double Metric(const std::string& series) const { return SeriesIn(Get("/metrics"), series); }

  // Polls the metrics until nothing runs and no block is held.
  void AwaitQuiet() const {
    while (Metric("quire_kv_blocks{state=\"held\"}") != 0 || Metric("vllm:num_requests_running") != 0 ||
           Metric("vllm:num_requests_waiting") != 0) {
    }
  }

 private:
  static std::vector<std::string> Arguments(std::vector<std::string> flags, const std::string& listen) {
    flags.insert(flags.begin(), {QUIRED_PATH, "--model", MODEL_PATH, "--listen", listen, "--admin-listen",
                                 "127.0.0.1:0", "--kv-cache-memory", "64MiB"});
    return flags;
  }

  static std::vector<std::string> Limited(std::vector<std::string> arguments, int max_descriptors) {
    if (max_descriptors == 0) return arguments;
    const std::string script = "ulimit -n " + std::to_string(max_descriptors) + " && exec \"$0\" \"$@\"";
    arguments.insert(arguments.begin(), {"/bin/sh", "-c", script});
    return arguments;
  }

  Process process_;
  std::string ready_line_, target_, model_;
  uint16_t admin_port_ = 0;
};

}  // namespace quire

#endif  // QUIRE_TESTS_SERVER_QUIRED_H_
