// The loop by which ChooseCpuIsa() compares instruction sets: included by the kernels_*.cc alone.

#ifndef QUIRE_KERNELS_CPU_MULTIPLY_ADDS_H_
#define QUIRE_KERNELS_CPU_MULTIPLY_ADDS_H_

#include <cstdint>

#include "kernels/linear/cpu_panel.h"

namespace quire {
namespace {

// Makes the compiler forget what it knows of the memory behind p.
inline void Forget(void* p) { asm volatile("" : : "r"(p) : "memory"); }

// One tile of `Weight` again and again on the same few steps of weights and x, all in L1: what the instruction can do
// at best.
template <class Weight>
int64_t MultiplyAdds(int64_t iterations) {
  constexpr int64_t kSteps = 32;
  alignas(64) char weights[Weight::kStepBytes * kSteps] = {};
  typename Weight::X x[kTileRows * kSteps * Weight::kStep] = {};
  alignas(64) float sums[kTileRows * kPanelRows];
  Forget(weights);
  Forget(x);
  for (int64_t i = 0; i < iterations; ++i) {
    Tile<Weight, kTileRows>({weights, x, kSteps * Weight::kStep, kSteps, true, sums, x, weights});
    Forget(sums);
  }
  return iterations * 2 * kSteps * Weight::kStep * kTileRows * kPanelRows;
}

}  // namespace
}  // namespace quire

#endif  // QUIRE_KERNELS_CPU_MULTIPLY_ADDS_H_
