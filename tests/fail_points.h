// What the fail points of kernels/fail_point.h answer in a test program. Without a ScopedFailPoint: no.

#ifndef QUIRE_TESTS_FAIL_POINTS_H_
#define QUIRE_TESTS_FAIL_POINTS_H_

#include <functional>

#include "kernels/fail_point.h"

namespace quire {

// While it lives, `reached` answers for `point`, on the threads that ask, several at once perhaps. At most one for each
// point at a time.
class ScopedFailPoint {
 public:
  ScopedFailPoint(FailPoint point, std::function<bool()> reached);
  ~ScopedFailPoint();

  ScopedFailPoint(const ScopedFailPoint&) = delete;
  ScopedFailPoint& operator=(const ScopedFailPoint&) = delete;

 private:
  const FailPoint point_;
};

}  // namespace quire

#endif  // QUIRE_TESTS_FAIL_POINTS_H_
