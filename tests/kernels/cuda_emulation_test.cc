// The emulation itself: what a device leaves undefined aborts, and what the options promise happens. Were it laxer, the
// tests of the kernels would say less than they seem to.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "tests/kernels/cuda/emulation.h"

namespace quire::cuda {
namespace {

constexpr size_t kSharedBytes = 256;

void RunCta(int num_threads, const std::function<void(const EmulatedThread&)>& kernel, EmulationOptions options = {}) {
  EmulatedGrid(options).Run(1, num_threads, kSharedBytes, kernel);
}

TEST(CudaEmulationTest, EveryByteOfSharedMemoryIsTheCtasAndBeginsAsNaN) {
  RunCta(32, [](const EmulatedThread& thread) {
    if (thread.thread() > 0) return;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(thread.shared()) % 128, 0u);
    for (size_t i = 0; i < kSharedBytes / sizeof(float); ++i)
      EXPECT_TRUE(std::isnan(reinterpret_cast<const float*>(thread.shared())[i])) << i;
    std::memset(thread.shared(), 0, kSharedBytes);
  });
}

TEST(CudaEmulationTest, BytesWrittenBeyondSharedMemoryAbort) {
  for (const size_t beyond : {size_t{0}, size_t{127}}) {
    EXPECT_DEATH(RunCta(32, [&](const EmulatedThread& thread) { thread.shared()[kSharedBytes + beyond] = 1; }),
                 "beyond the CTA's shared memory");
  }
}

TEST(CudaEmulationTest, CopiesThatAreNotAlignedOrNotTheCtasAbort) {
  alignas(16) static const char from[32] = {};
  for (const bool late : {false, true}) {
    const auto copy = [&](std::ptrdiff_t to, int at, bool valid) {
      RunCta(32,
             [=](const EmulatedThread& thread) {
               if (thread.thread() == 0) thread.CopyAsync16(thread.shared() + to, from + at, valid);
             },
             {.late_copies = late});
    };
    EXPECT_DEATH(copy(8, 0, true), "not aligned");
    EXPECT_DEATH(copy(0, 8, true), "not aligned");
    EXPECT_DEATH(copy(kSharedBytes, 0, true), "outside the CTA's shared memory");
    EXPECT_DEATH(copy(kSharedBytes, 0, false), "outside the CTA's shared memory");
    EXPECT_DEATH(copy(-16, 0, true), "outside the CTA's shared memory");
    copy(kSharedBytes - 16, 16, true);
    copy(0, 8, false);  // reads nothing
  }
}

TEST(CudaEmulationTest, MatricesThatAreNotAlignedOrNotTheCtasAbort) {
  for (const bool transposed : {false, true}) {
    const auto load = [&](std::ptrdiff_t at) {
      RunCta(32, [=](const EmulatedThread& thread) {
        uint32_t r[4];
        const char* row = thread.shared() + (thread.lane() == 9 ? at : 0);
        transposed ? thread.LoadMatricesTransposed(row, r) : thread.LoadMatrices(row, r);
      });
    };
    EXPECT_DEATH(load(8), "not aligned");
    EXPECT_DEATH(load(kSharedBytes), "outside the CTA's shared memory");
    EXPECT_DEATH(load(-16), "outside the CTA's shared memory");
    load(kSharedBytes - 16);
  }
}

TEST(CudaEmulationTest, LanesThatDivergeAbort) {
  EXPECT_DEATH(RunCta(32,
                      [](const EmulatedThread& thread) {
                        if (thread.lane() < 16) {
                          thread.Ballot(true);
                        } else {
                          thread.SyncWarp();
                        }
                      }),
               "different functions");
  EXPECT_DEATH(RunCta(32,
                      [](const EmulatedThread& thread) {
                        if (thread.lane() != 3) thread.SyncWarp();
                      }),
               "passed by");
}

TEST(CudaEmulationTest, ABarrierThatNotAllThreadsReachAborts) {
  EXPECT_DEATH(RunCta(64,
                      [](const EmulatedThread& thread) {
                        if (thread.warp() == 0) thread.Sync();
                      }),
               "passed by");
}

TEST(CudaEmulationTest, ACopyArrivesAsLateAsItMayOrAtOnce) {
  alignas(16) static const char from[16] = {42};
  for (const bool late : {false, true}) {
    RunCta(32,
           [=](const EmulatedThread& thread) {
             if (thread.thread() > 0) return;
             char* const shared = thread.shared();
             thread.CopyAsync16(shared, from, true);
             thread.CommitCopies();
             thread.CopyAsync16(shared + 16, from, true);
             thread.CommitCopies();
             EXPECT_EQ(shared[0] == 42, !late);
             thread.WaitForCopies<1>();
             EXPECT_EQ(shared[0], 42);
             EXPECT_EQ(shared[16] == 42, !late);
             thread.WaitForCopies<0>();
             EXPECT_EQ(shared[16], 42);
             thread.CopyAsync16(shared, from, false);
             thread.CommitCopies();
             thread.WaitForCopies<0>();
             EXPECT_EQ(shared[0], 0);
           },
           {.late_copies = late});
  }
}

TEST(CudaEmulationTest, ThreadsAndCtasRunInEitherOrder) {
  for (const bool reversed : {false, true}) {
    std::vector<int> order;
    EmulatedGrid({.reversed = reversed}).Run(2, 64, 0, [&](const EmulatedThread& thread) {
      order.push_back(thread.cta() * 64 + thread.thread());
    });
    ASSERT_EQ(order.size(), 128u);
    EXPECT_EQ(order.front(), reversed ? 127 : 0);
    if (reversed) std::reverse(order.begin(), order.end());
    EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  }
}

}  // namespace
}  // namespace quire::cuda
