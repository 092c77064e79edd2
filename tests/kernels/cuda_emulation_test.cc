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
    EXPECT_EQ(reinterpret_cast<uintptr_t>(thread.shared()) % 1024, 0u);
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

// D = A B for a matrix of 64 rows of 64 elements in shared memory, of which the first 16 elements, or rows, are B.
struct WarpgroupProduct {
  static constexpr size_t kBytes = 64 * SharedMatrix::kRowBytes;
  bool fences_registers = true, fences_proxy = true, overwrites = false, waits = true;

  // The element of D that a lane has in d[n][e].
  static int RowOf(const EmulatedThread& thread, int e) { return thread.warp() * 16 + thread.lane() / 4 + e / 2 * 8; }
  static int ColOf(const EmulatedThread& thread, int n, int e) { return 8 * n + thread.lane() % 4 * 2 + e % 2; }

  template <bool kTransposed>
  void Run() const {
    EmulatedGrid({}).Run(1, 128, kBytes, [this](const EmulatedThread& thread) {
      const auto element = [&](int row, int col) {
        const int unit = col / 8 ^ row % 8;
        return reinterpret_cast<Float16*>(thread.shared() + row * SharedMatrix::kRowBytes + unit * 16) + col % 8;
      };
      const auto value = [](int row, int col) { return static_cast<float>(row * 3 - col); };
      for (int row = thread.thread(); row < 64; row += 128) {
        for (int col = 0; col < 64; ++col) Store(element(row, col), value(row, col));
      }
      if (fences_proxy) thread.FenceAsyncProxy();
      thread.Sync();
      // A is the row's number in column 3, and 1 in column 4.
      uint32_t a[4] = {};
      const int i = thread.warp() * 16 + thread.lane() / 4;
      for (int r = 0; r < 2; ++r) {
        if (thread.lane() % 4 == 1) a[r] = Pack<Float16>(0, static_cast<float>(i + 8 * r));
        if (thread.lane() % 4 == 2) a[r] = Pack<Float16>(1, 0);
      }
      float d[8][4] = {};
      if (fences_registers) thread.WarpgroupFence(d);
      thread.MultiplyAdd<Float16, kTransposed>(d, a, thread.Matrix(thread.shared()), false);
      thread.WarpgroupCommit();
      EXPECT_TRUE(std::isnan(d[0][0]));
      if (overwrites) Store(element(3, 3), 100.0f);
      if (!waits) return;
      thread.WarpgroupWait<0>(d);
      for (int n = 0; n < 8; ++n) {
        for (int e = 0; e < 4; ++e) {
          const int row = RowOf(thread, e), col = ColOf(thread, n, e);
          const auto b = [&](int k) { return kTransposed ? value(k, col) : value(col, k); };
          EXPECT_EQ(d[n][e], static_cast<float>(row) * b(3) + b(4)) << row << " " << col;
        }
      }
    });
  }
};

TEST(CudaEmulationTest, AWarpgroupsProductReadsTheSwizzledMatrixAlongItsRowsOrAcross) {
  WarpgroupProduct().Run<false>();
  WarpgroupProduct().Run<true>();
}

TEST(CudaEmulationTest, AWarpgroupsProductThatIsNotSynchronisedAborts) {
  EXPECT_DEATH(WarpgroupProduct{.fences_registers = false}.Run<true>(), "without WarpgroupFence");
  EXPECT_DEATH(WarpgroupProduct{.fences_proxy = false}.Run<true>(), "without FenceAsyncProxy, or too soon");
  EXPECT_DEATH(WarpgroupProduct{.overwrites = true}.Run<true>(), "without FenceAsyncProxy, or too soon");
  EXPECT_DEATH(WarpgroupProduct{.waits = false}.Run<true>(), "nobody waited");
  EXPECT_DEATH(RunCta(128,
                      [](const EmulatedThread& thread) {
                        if (thread.warp() != 2) thread.WarpgroupCommit();
                      }),
               "passed by");
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
