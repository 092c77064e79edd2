// Ten thousand calls that end before their time, of a whole daemon under load: nothing of them stays.

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/scheduler/fake_runner.h"
#include "tests/server/test_daemon.h"

namespace quire {
namespace {

// A line of /proc/self/status: a count, or KiB.
int64_t OfProcess(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(name + ":", 0) == 0) return std::stoll(line.substr(name.size() + 1));
  }
  return -1;
}

// One connection's calls: each has some outputs, is read for a while, and is then ended in one of five ways. Every
// hundredth stays to its end.
void EndCalls(const TestDaemon& daemon, int thread, int num_calls) {
  TestRandom random(static_cast<uint64_t>(thread) + 1);
  auto stub = v1::GenerationService::NewStub(daemon.Connect());
  for (int i = 0; i < num_calls; ++i) {
    v1::GenerateRequest request = GreedyRequest(absl::StrCat("Once ", random.Between(0, 99), " upon a time"), 200);
    if (random.Percent(25)) request.set_n(static_cast<uint32_t>(random.Between(2, 4)));
    const bool stays = random.Between(0, 99) == 0;
    if (stays) request.mutable_stopping()->set_max_tokens(4);
    request.set_request_id(absl::StrCat(thread, "/", i));
    auto context = std::make_unique<grpc::ClientContext>();
    const int way = random.Between(0, 99);
    if (!stays && way < 15) {
      context->set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(random.Between(0, 20)));
    }
    auto reader = stub->Generate(context.get(), request);
    v1::GenerateResponse response;
    const int num_read = stays ? 1'000'000 : random.Between(0, 6);
    for (int read = 0; read < num_read && reader->Read(&response);) ++read;
    if (stays) {
      EXPECT_TRUE(reader->Finish().ok());
      continue;
    }
    if (way < 15) {  // its deadline ends it
    } else if (way < 40) {
      context->TryCancel();
    } else if (way < 70) {
      v1::CancelRequest cancel;
      cancel.add_request_ids(request.request_id());
      v1::CancelResponse cancelled;
      grpc::ClientContext other;
      EXPECT_TRUE(stub->Cancel(&other, cancel, &cancelled).ok());
    } else if (way < 98) {  // it is let go of
      reader.reset();
      context.reset();
      continue;
    } else {  // with its connection
      context->TryCancel();
      stub = v1::GenerationService::NewStub(daemon.Connect());
    }
    while (reader->Read(&response)) continue;
    reader->Finish();  // OK if it was complete already, or cancelled by name before it had one
  }
}

TEST(CancellationTest, TenThousandCancelsLeaveNoBlockThreadStreamOrMemory) {
  constexpr int kNumThreads = 8, kRounds = 5, kCalls = 250;  // of a thread in a round
  TestDaemon daemon(TestDaemon::SmallOptions());
  const double num_blocks = daemon.Metric("quire_kv_blocks{state=\"free\"}");
  std::vector<int64_t> num_threads, resident_kib;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<std::thread> threads;
    for (int i = 0; i < kNumThreads; ++i) {
      threads.emplace_back([&, i] { EndCalls(daemon, round * kNumThreads + i, kCalls); });
    }
    for (std::thread& thread : threads) thread.join();
    Await("nothing is under way",
          [&] { return daemon.Metric("vllm:num_requests_running") + daemon.Metric("vllm:num_requests_waiting") == 0; });
    daemon.ExpectAllIsWell();
    EXPECT_EQ(daemon.Metric("quire_kv_blocks{state=\"free\"}") + daemon.Metric("quire_kv_blocks{state=\"cached\"}"),
              num_blocks);
    num_threads.push_back(OfProcess("Threads"));
    resident_kib.push_back(OfProcess("VmRSS"));
  }
  // Some had gone before they came.
  EXPECT_GT(daemon.Metric("quire_requests_received_total"), 0.8 * kNumThreads * kRounds * kCalls);
  EXPECT_GT(daemon.Ended("cancelled"), 0.5 * kNumThreads * kRounds * kCalls);
  EXPECT_GT(daemon.Ended("finished"), 0);
  // The first round warms allocators and gRPC's pools up.
  EXPECT_LE(num_threads.back(), num_threads[0] + 2);
#ifndef __SANITIZE_ADDRESS__  // it keeps what is freed
  EXPECT_LT(resident_kib.back() - resident_kib[0], 8 * 1024) << "a KiB for each call that was cancelled";
#endif
  RecordProperty("resident_kib_grown", static_cast<int>(resident_kib.back() - resident_kib[0]));
  RecordProperty("threads_grown", static_cast<int>(num_threads.back() - num_threads[0]));
}

}  // namespace
}  // namespace quire
