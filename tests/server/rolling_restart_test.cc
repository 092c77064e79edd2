// Three replicas are restarted one after the other while clients that balance for themselves keep them busy: no request
// is lost. The client is gRPC's own round_robin over fixed addresses. It follows the replicas' health, so that it has
// turned to the others when the drain delay is over; a call that is refused is tried again elsewhere by its retry
// policy; one that a replica has accepted it finishes. Without the health a call that comes in the very moment in which
// gRPC shuts down is cancelled by it, which no client tries again.

#include <gmock/gmock.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "quire/v1/generation.grpc.pb.h"
#include "tests/server/quired.h"

namespace quire {
namespace {

constexpr int kReplicas = 3;
constexpr int kClients = 6;
constexpr int kTokens = 48;

// An address of this process's own below the ports that systems give out: nobody takes it while a replica is away.
std::string Address(int replica) {
  const int pid = getpid();
  std::string address = "127.";
  for (const int part : {1 + (pid >> 16) % 250, (pid >> 8) % 256, pid % 256}) {
    address.append(std::to_string(part)).append(".");
  }
  address.back() = ':';
  return address.append(std::to_string(20051 + replica));
}

std::unique_ptr<Quired> Start(int replica) {
  return std::make_unique<Quired>(std::vector<std::string>{"--drain-delay", "300ms", "--threads", "1"},
                                  Address(replica));
}

std::shared_ptr<grpc::Channel> RoundRobin() {
  std::string target = "ipv4:" + Address(0);
  for (int i = 1; i < kReplicas; ++i) target.append(",").append(Address(i));
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(R"({
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "quire.v1.GenerationService"},
    "methodConfig": [{"name": [{}], "waitForReady": true,
                      "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.02s", "maxBackoff": "0.2s",
                                      "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]})");
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
}

// One whole generation; its text, or what went wrong.
std::string Generate(v1::GenerationService::Stub& stub) {
  v1::GenerateRequest request;
  request.set_text("Once upon a time there was a little");
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(kTokens);
  request.mutable_stopping()->set_ignore_eos(true);
  grpc::ClientContext context;
  const auto reader = stub.Generate(&context, request);
  std::string text;
  v1::GenerateResponse response;
  uint32_t num_tokens = 0;
  while (reader->Read(&response)) {
    text += response.delta().text();
    if (response.has_finished()) num_tokens = response.finished().usage().completion_tokens();
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) return "code " + std::to_string(status.error_code()) + ": " + status.error_message();
  return num_tokens == kTokens ? text : "only " + std::to_string(num_tokens) + " tokens";
}

TEST(RollingRestart, LosesNoRequest) {
  std::vector<std::unique_ptr<Quired>> replicas;
  for (int i = 0; i < kReplicas; ++i) replicas.push_back(Start(i));
  const auto stub = v1::GenerationService::NewStub(RoundRobin());
  const std::string wanted = Generate(*stub);
  ASSERT_GT(wanted.size(), size_t{kTokens});

  std::atomic<bool> stop{false};
  std::vector<std::vector<std::string>> lost(kClients);
  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back([&, i] {
      while (!stop) {
        if (std::string text = Generate(*stub); text != wanted) lost[i].push_back(std::move(text));
      }
    });
  }
  const auto await_load = [&](int i) {
    while (replicas[i]->Metric("quire_requests_total{ending=\"finished\"}") < 2 * kClients) continue;
  };
  for (int i = 0; i < kReplicas; ++i) await_load(i);
  for (int i = 0; i < kReplicas; ++i) {
    replicas[i]->process().Signal(SIGTERM);
    EXPECT_EQ(replicas[i]->process().Wait(), 0) << replicas[i]->process().ReadErrors();
    replicas[i] = Start(i);
    await_load(i);  // its clients have found it again
  }
  stop = true;
  for (std::thread& client : clients) client.join();
  for (const auto& texts : lost) EXPECT_THAT(texts, testing::IsEmpty());
}

}  // namespace
}  // namespace quire
