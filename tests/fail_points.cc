#include "tests/fail_points.h"

#include <array>
#include <memory>
#include <mutex>
#include <utility>

#include "kernels/check.h"

namespace quire {

// Defined here and not in kernels: this file alone makes fail points of the calls.
bool FailPointIsReached(FailPoint point);

namespace {

using Answer = std::shared_ptr<const std::function<bool()>>;

std::mutex mutex;
std::array<Answer, kNumFailPoints> answers;  // guarded by mutex

Answer& AnswerOf(FailPoint point) { return answers[static_cast<size_t>(point)]; }

}  // namespace

bool FailPointIsReached(FailPoint point) {
  Answer answer;
  {
    const std::lock_guard lock(mutex);
    answer = AnswerOf(point);
  }
  return answer != nullptr && (*answer)();
}

ScopedFailPoint::ScopedFailPoint(FailPoint point, std::function<bool()> reached) : point_(point) {
  const std::lock_guard lock(mutex);
  Check(AnswerOf(point) == nullptr, "two answers for one fail point");
  AnswerOf(point) = std::make_shared<const std::function<bool()>>(std::move(reached));
}

ScopedFailPoint::~ScopedFailPoint() {
  const std::lock_guard lock(mutex);
  AnswerOf(point_) = nullptr;
}

}  // namespace quire
