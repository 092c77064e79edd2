// A whole daemon in this process, on the bundled model, and a client of it.

#ifndef QUIRE_TESTS_SERVER_TEST_DAEMON_H_
#define QUIRE_TESTS_SERVER_TEST_DAEMON_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "kernels/check.h"
#include "quire/v1/generation.grpc.pb.h"
#include "server/daemon.h"
#include "server/shutdown_signal.h"
#include "tests/server/http_get.h"

namespace quire {

// What a Generate call brought.
struct Answer {
  grpc::Status status;
  v1::Accepted accepted;
  std::vector<uint32_t> ids;  // of all outputs, output by output
  v1::Finished finished;
};

// Without an end but max_tokens.
inline v1::GenerateRequest GreedyRequest(const std::string& text, uint32_t max_tokens) {
  v1::GenerateRequest request;
  request.set_text(text);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(max_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  return request;
}

// Polls until it holds; fails after a minute.
template <typename Condition>
void Await(const char* what, const Condition& holds) {
  for (const absl::Time give_up = absl::Now() + absl::Minutes(1); !holds();) {
    if (absl::Now() > give_up) {
      ADD_FAILURE() << "never: " << what;
      return;
    }
  }
}

class TestDaemon {
 public:
  // One worker, 16 MiB of cache, free ports.
  static Options SmallOptions() {
    Options options;
    options.engine.model = MODEL_PATH;
    options.engine.backend.num_threads = 1;
    options.engine.kv_cache_bytes = 16 << 20;
    options.listen.port = 0;
    options.admin_listen.port = 0;
    return options;
  }

  explicit TestDaemon(const Options& options) {
    auto daemon = Daemon::Start(options, signal_);
    Check(daemon.ok(), daemon.status().ToString().c_str());
    daemon_ = *std::move(daemon);
    for (absl::string_view part : absl::StrSplit(daemon_->ReadyLine(), ' ')) {
      if (absl::ConsumePrefix(&part, "grpc=")) target_ = std::string(part);
      if (absl::ConsumePrefix(&part, "admin=127.0.0.1:"))
        admin_port_ = static_cast<uint16_t>(std::stoi(std::string(part)));
    }
    channel_ = Connect();
    stub_ = v1::GenerationService::NewStub(channel_);
  }

  Daemon& daemon() { return *daemon_; }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  v1::GenerationService::Stub& stub() const { return *stub_; }
  // A connection of its own.
  std::shared_ptr<grpc::Channel> Connect() const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(target_, grpc::InsecureChannelCredentials(), arguments);
  }

  Answer Generate(const v1::GenerateRequest& request) const {
    Answer answer;
    std::map<uint32_t, std::vector<uint32_t>> outputs;
    grpc::ClientContext context;
    const auto reader = stub_->Generate(&context, request);
    for (v1::GenerateResponse response; reader->Read(&response);) {
      const auto& ids = response.delta().token_ids();
      if (response.has_accepted()) answer.accepted = response.accepted();
      std::vector<uint32_t>& output = outputs[response.delta().index()];
      output.insert(output.end(), ids.begin(), ids.end());
      if (response.has_finished()) answer.finished = response.finished();
    }
    for (const auto& [index, ids] : outputs) answer.ids.insert(answer.ids.end(), ids.begin(), ids.end());
    answer.status = reader->Finish();
    return answer;
  }

  std::string Get(const std::string& path) const { return HttpGet(admin_port_, path); }
  double Metric(const std::string& series) const { return SeriesIn(Get("/metrics"), series); }
  double Ended(const std::string& how) const { return Metric("quire_requests_total{ending=\"" + how + "\"}"); }

  // Once nothing runs: no block is held, and both books balance.
  void ExpectAllIsWell() const {
    Await("no block is held", [this] { return Metric("quire_kv_blocks{state=\"held\"}") == 0; });
    double endings = 0;
    for (const char* how : {"finished", "cancelled", "expired", "rejected", "failed"}) endings += Ended(how);
    EXPECT_EQ(endings, Metric("quire_requests_received_total"));
    // The last tokens may still be on their way to the writers.
    Await("the tokens' books balance", [this] {
      return Metric("quire_tokens_computed_total") == Metric("quire_tokens_delivered_total") +
                                                          Metric("quire_tokens_recomputed_total") +
                                                          Metric("quire_tokens_discarded_total");
    });
  }

 private:
  ShutdownSignal signal_;  // before all threads
  std::unique_ptr<Daemon> daemon_;
  std::string target_;
  uint16_t admin_port_ = 0;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::GenerationService::Stub> stub_;
};

}  // namespace quire

#endif  // QUIRE_TESTS_SERVER_TEST_DAEMON_H_
