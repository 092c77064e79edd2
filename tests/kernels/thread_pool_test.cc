#include "kernels/cpu/thread_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>
#include <vector>

#include "kernels/cpu/cpu_quota.h"

namespace quire {
namespace {

using testing::HasSubstr;

TEST(ThreadPoolTest, EveryShareIsDoneOnceInEachRun) {
  for (int threads : {1, 2, 3, 8}) {
    const std::unique_ptr<ThreadPool> pool = *ThreadPool::Create({threads, {}});
    ASSERT_EQ(pool->num_threads(), threads);
    std::vector<int> calls(threads);             // not atomic: Run must publish and collect
    const int runs = threads <= 2 ? 3000 : 300;  // where CPUs are few, each Run of many waits for its turn many times
    for (int i = 0; i < runs; ++i) {
      pool->Run([&](int share) { ++calls[share]; });
      for (int each : calls) ASSERT_EQ(each, i + 1) << threads;
    }
  }
}

// Calls body(share), and ends none before all have begun: so that each is done by the thread that it belongs to.
void RunTogether(ThreadPool& pool, absl::FunctionRef<void(int share)> body) {
  std::atomic<int> begun{0};
  pool.Run([&](int share) {
    begun.fetch_add(1);
    while (begun.load() < pool.num_threads()) std::this_thread::yield();
    body(share);
  });
}

TEST(ThreadPoolTest, TheCallerDoesShareZeroAndWorkersTheirs) {
  const std::unique_ptr<ThreadPool> pool = *ThreadPool::Create({3, {}});
  std::vector<std::thread::id> ids(3);
  RunTogether(*pool, [&](int share) { ids[share] = std::this_thread::get_id(); });
  EXPECT_EQ(ids[0], std::this_thread::get_id());
  EXPECT_EQ(std::set<std::thread::id>(ids.begin(), ids.end()).size(), 3u);
}

TEST(ThreadPoolTest, TheCallerDoesTheSharesOfWorkersThatDoNotCome) {
  const std::unique_ptr<ThreadPool> pool =
      *ThreadPool::Create({ThreadPool::AllowedCpus() + 2, {}});  // they park at once
  const std::thread::id caller = std::this_thread::get_id();
  bool taken_over = false;
  while (!taken_over) {  // shares that take no time are done before those workers are awake
    std::vector<std::thread::id> ids(pool->num_threads());
    pool->Run([&](int share) { ids[share] = std::this_thread::get_id(); });
    ASSERT_EQ(ids[0], caller);
    ASSERT_THAT(ids, testing::Not(testing::Contains(std::thread::id())));
    taken_over = std::count(ids.begin(), ids.end(), caller) > 1;
  }
}

TEST(ThreadPoolTest, RunsOfUnequalLengthNeitherOverlapNorHang) {
  const std::unique_ptr<ThreadPool> pool = *ThreadPool::Create({3, {}});
  std::atomic<int> inside{0};
  std::vector<uint64_t> sums(3 * 8);
  for (int i = 0; i < 1000; ++i) {
    pool->Run([&](int worker) {
      inside.fetch_add(1);
      for (int work = 0; work < (i * 7919 + worker * 104729) % 3000; ++work) sums[worker * 8] += work * i;
      inside.fetch_sub(1);
    });
    ASSERT_EQ(inside.load(), 0);
    if (i % 500 == 0) {  // long enough for the others to park
      const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(1);
      while (std::chrono::steady_clock::now() < until) std::this_thread::yield();
    }
  }
}

TEST(ThreadPoolTest, MoreThreadsThanCpusDoNotSpinAndDoNotHang) {
  const int threads = ThreadPool::AllowedCpus() + 5;
  const std::unique_ptr<ThreadPool> pool = *ThreadPool::Create({threads, {}});
  EXPECT_FALSE(pool->spins());
  std::atomic<int64_t> calls{0};
  for (int i = 0; i < 300; ++i) pool->Run([&](int worker) { calls.fetch_add(1); });
  EXPECT_EQ(calls.load(), 300 * threads);
}

TEST(ThreadPoolTest, ThreadsWithinTheQuotaSpin) {
  const int allowed = ThreadPool::AllowedCpus();
  if (allowed < 2) GTEST_SKIP() << "one CPU";
  EXPECT_TRUE((*ThreadPool::Create({allowed, {}}))->spins());
  const int cpu = AffinityCpus()[0];
  EXPECT_FALSE((*ThreadPool::Create({2, {cpu}}))->spins());  // two on one CPU
}

TEST(ThreadPoolTest, CallersMayChangeBetweenRuns) {
  const std::unique_ptr<ThreadPool> pool = *ThreadPool::Create({3, {}});
  std::vector<int> calls(3);
  for (int i = 0; i < 20; ++i) {
    std::thread([&] { pool->Run([&](int worker) { ++calls[worker]; }); }).join();
  }
  EXPECT_THAT(calls, testing::Each(20));
}

TEST(ThreadPoolTest, WorkersAndLaterCallersArePinnedTheCreatorIsNot) {
  const std::vector<int> before = AffinityCpus();
  const std::unique_ptr<ThreadPool> pool = *ThreadPool::Create({2, {before.back(), before.front()}});
  std::vector<std::vector<int>> masks(2);
  const auto look = [&](int share) { masks[share] = AffinityCpus(); };
  RunTogether(*pool, look);
  EXPECT_EQ(masks[0], before);
  EXPECT_EQ(masks[1], std::vector<int>{before.front()});
  std::thread([&] { RunTogether(*pool, look); }).join();
  EXPECT_EQ(masks[0], std::vector<int>{before.back()});
}

TEST(ThreadPoolTest, RefusesWhatCannotBe) {
  const int outside = AffinityCpus().back() + 1;
  const absl::Status bind = ThreadPool::Create({1, {outside}}).status();
  EXPECT_EQ(bind.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(bind.message()), HasSubstr("CPU " + std::to_string(outside) + " is not in"));
  EXPECT_EQ(ThreadPool::Create({1, {-1}}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(ThreadPool::Create({-2, {}}).status().message()), HasSubstr("num_threads is -2"));
  EXPECT_EQ(ThreadPool::Create({100000, {}}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ThreadPoolTest, PoolsComeAndGo) {
  for (int i = 0; i < 50; ++i) {
    const std::unique_ptr<ThreadPool> pool = *ThreadPool::Create({1 + i % 5, {}});
    if (i % 2 == 0) pool->Run([](int) {});
  }
}

class CpuQuotaTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = std::filesystem::path(testing::TempDir()) / testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  std::optional<double> Quota(const std::string& proc) { return CgroupCpuQuota(proc, root_.string()); }

  std::filesystem::path root_;
};

TEST_F(CpuQuotaTest, NoFilesOrMaxIsNoLimit) {
  EXPECT_EQ(Quota(""), std::nullopt);
  EXPECT_EQ(Quota("0::/a/b\n"), std::nullopt);
  Write("a/cpu.max", "max 100000\n");
  EXPECT_EQ(Quota("0::/a\n"), std::nullopt);
}

TEST_F(CpuQuotaTest, TheSmallestLimitOfTheGroupAndItsParentsHolds) {
  Write("a/cpu.max", "150000 100000\n");
  Write("a/b/cpu.max", "400000 100000\n");
  EXPECT_DOUBLE_EQ(*Quota("0::/a/b\n"), 1.5);
  EXPECT_DOUBLE_EQ(*Quota("0::/a\n"), 1.5);
  EXPECT_EQ(Quota("0::/c\n"), std::nullopt);
}

TEST_F(CpuQuotaTest, AContainerSeesItsGroupAtTheRoot) {
  Write("cpu.max", "50000 100000\n");
  EXPECT_DOUBLE_EQ(*Quota("0::/\n"), 0.5);
  EXPECT_DOUBLE_EQ(*Quota("0::/docker/0123\n"), 0.5);
}

TEST_F(CpuQuotaTest, Version1HasAQuotaAndAPeriod) {
  Write("cpu,cpuacct/x/cpu.cfs_quota_us", "300000\n");
  Write("cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
  Write("cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  Write("cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  EXPECT_DOUBLE_EQ(*Quota("12:memory:/y\n4:cpu,cpuacct:/x\n0::/\n"), 3.0);
  EXPECT_EQ(Quota("4:cpuset:/x\n"), std::nullopt);
}

TEST(AllowedCpusTest, IsAtLeastOneAndWithinTheMask) {
  EXPECT_GE(ThreadPool::AllowedCpus(), 1);
  EXPECT_LE(ThreadPool::AllowedCpus(), static_cast<int>(AffinityCpus().size()));
}

}  // namespace
}  // namespace quire
