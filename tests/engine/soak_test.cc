// Company, siblings, chunks, preemption, prefix hits, pauses and cancels of others, workers and a restart are
// invisible, all at once.
//
// The suite takes a thousand requests on cpu. ref with more than a handful:
//
//   build/release/bin/quire_soak_test --gtest_also_run_disabled_tests

#include "tests/engine/soak.h"

namespace quire {
namespace {

soak::Load On(BackendKind kind) {
  return [kind](EngineOptions options, int num_threads) {
    options.backend.kind = kind;
    if (kind == BackendKind::kCpu) options.backend.num_threads = num_threads;
    return LoadModel(options);
  };
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kManyRequests = 200;  // a sanitizer makes them twenty times as slow
#else
constexpr int kManyRequests = 1000;
#endif

TEST(SoakTest, MixedTrafficIsWhatEachRequestIsAloneOnCpu) {
  soak::Soak(On(BackendKind::kCpu), soak::kLarge, kManyRequests);
}
TEST(SoakTest, MixedTrafficIsWhatEachRequestIsAloneOnRef) { soak::Soak(On(BackendKind::kRef), soak::kSmall, 8); }

TEST(SoakTest, DISABLED_AHundredOnRef) { soak::Soak(On(BackendKind::kRef), soak::kSmall, 100); }

}  // namespace
}  // namespace quire
