// The loop by which ChooseCpuIsa() compares instruction sets: included by the kernels_*.cc alone.

#ifndef QUIRE_KERNELS_CPU_MULTIPLY_ADDS_H_
#define QUIRE_KERNELS_CPU_MULTIPLY_ADDS_H_

#include <cstdint>

#include "kernels/linear/cpu_panel.h"

namespace quire {
namespace {

// One tile of `Weight` again and again on the same step of weights and x, all in L1: what the instruction can do at best.
template <class Weight>
int64_t MultiplyAdds(int64_t iterations) {
  alignas(64) static constexpr char kWeights[Weight::kStepBytes * 16] = {};
  typename Weight::X x[kTileRows * 16 * Weight::kStep] = {};
  alignas(64) float sums[kTileRows * kPanelRows];
  for (int64_t i = 0; i < iterations; ++i) Tile<Weight, kTileRows>(kWeights, x, 16 * Weight::kStep, 16, true, sums);
  return iterations * 2 * 16 * Weight::kStep * kTileRows * kPanelRows;
}

}  // namespace
}  // namespace quire

#endif  // QUIRE_KERNELS_CPU_MULTIPLY_ADDS_H_
