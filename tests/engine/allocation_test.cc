// "Nothing is allocated on the step path": operator new is counted over steps in which no sequence starts, ends or
// gains a block.

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <set>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/engine/engine_testing.h"

namespace {

std::atomic<uint64_t> num_allocations{0};

void* CountedAllocation(std::size_t bytes, std::size_t alignment) {
  num_allocations.fetch_add(1, std::memory_order_relaxed);
  void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t bytes) { return CountedAllocation(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return CountedAllocation(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace quire {
namespace {

constexpr int32_t kBlockSize = 64;
constexpr int32_t kSequences = 4;
constexpr int32_t kPromptLen = 32;

// Notes, at the end of each step, how many allocations there have been; allocates nothing itself.
class StepCounter : public EventSink {
 public:
  explicit StepCounter(EventSink* sink) : sink_(sink) { marks_.reserve(10'000); }

  void OnEvents(std::vector<TokenEvent>& events) override {
    bool steady = events.size() == kSequences;
    for (const TokenEvent& event : events)
      steady = steady && event.kind == EventKind::kToken && event.finish == FinishReason::kNone;
    marks_.push_back({steady, num_allocations.load() - previous_});
    sink_->OnEvents(events);
    previous_ = num_allocations.load();
  }
  void OnEngineFailure(const absl::Status& status) override { sink_->OnEngineFailure(status); }

  struct Mark {
    bool steady;           // every sequence got a token and none ended
    uint64_t allocations;  // in this step, the sink's own apart
  };
  const std::vector<Mark>& marks() const { return marks_; }

 private:
  EventSink* sink_;
  std::vector<Mark> marks_;
  uint64_t previous_ = 0;  // allocations when the last step was handed over
};

class Allocation : public testing::TestWithParam<bool> {};

TEST_P(Allocation, ASteadyStepAllocatesNothing) {
  const bool with_logprobs = GetParam();
  EngineOptions options = BundledModelOptions(BackendKind::kCpu);
  options.block_size = kBlockSize;
  options.backend.num_threads = 2;
  absl::StatusOr<LoadedModel> model = LoadModel(options);
  ASSERT_TRUE(model.ok()) << model.status();
  CollectingSink collected;
  StepCounter counter(&collected);
  Engine engine(model->plan.scheduler, 1000, 1'000'000, std::move(model->runner), &counter);
  // All have the same lengths: they decode together, and gain a block in the same step.
  for (RequestId id = 0; id < kSequences; ++id) {
    auto request = MakeRequest(id, RandomPrompt(id, kPromptLen, 4096), 100);
    if (with_logprobs) request->num_logprobs = 0;
    if (id % 2 == 0) request->sampling = {.temperature = 1.0f, .top_k = 40, .top_p = 0.9f, .min_p = 0.01f, .seed = id};
    ASSERT_TRUE(engine.Submit(request).ok());
  }
  for (RequestId id = 0; id < kSequences; ++id) collected.Wait(id);
  engine.Shutdown();

  int num_steady = 0, num_silent = 0;
  for (const StepCounter::Mark& mark : counter.marks()) {
    num_steady += mark.steady ? 1 : 0;
    num_silent += mark.steady && mark.allocations == 0 ? 1 : 0;
  }
  // A block holds 64 tokens: of some 100 steps at most two gain one.
  EXPECT_GT(num_steady, 80);
  EXPECT_GE(num_silent, num_steady - 2);
}

INSTANTIATE_TEST_SUITE_P(Logprobs, Allocation, testing::Bool());

}  // namespace
}  // namespace quire
