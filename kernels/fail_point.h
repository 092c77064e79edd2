// FailPoint: a place where a test can have the code fail as a device, a full cache or a client would have it.
//
// The product has none: there Reached is the constant false, and what hangs on it is not compiled. The few files that
// ask are compiled a second time for tests, with QUIRE_FAIL_POINTS, and linked before the library of their room
// (tests/CMakeLists.txt); tests/fail_points.h decides then. tests/server/fail_points_test.cc holds the product to it.
//
// Thread: as the code that asks.

#ifndef QUIRE_KERNELS_FAIL_POINT_H_
#define QUIRE_KERNELS_FAIL_POINT_H_

#include <cstdint>

namespace quire {

enum class FailPoint : uint8_t {
  kBlockAllocation,  // the pool has no block for a running sequence, or one that would run beside others
  kRunnerError,      // the device fails in a step
  kSlowStep,         // a step takes as long as the answer
  kNaNRow,           // a row of logits is not a number
  kWriteStall,       // a client does not take a message
};
constexpr int kNumFailPoints = 5;

#ifdef QUIRE_FAIL_POINTS
// Of the test. Called on the thread that asks.
bool FailPointIsReached(FailPoint point);
#endif

// Static, for the two forms stand in one program.
static inline bool Reached([[maybe_unused]] FailPoint point) {
#ifdef QUIRE_FAIL_POINTS
  return FailPointIsReached(point);
#else
  return false;
#endif
}

}  // namespace quire

#endif  // QUIRE_KERNELS_FAIL_POINT_H_
