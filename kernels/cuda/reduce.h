// Sums and maxima over a warp and over a CTA, in an order that depends on the number of threads alone.

#ifndef QUIRE_KERNELS_CUDA_REDUCE_H_
#define QUIRE_KERNELS_CUDA_REDUCE_H_

#include "kernels/cuda/numbers.h"

namespace quire::cuda {

struct Sum {
  template <typename T>
  QUIRE_DEVICE T operator()(T a, T b) const {
    return a + b;
  }
};
struct Maximum {
  template <typename T>
  QUIRE_DEVICE T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};

// Every lane gets the result.
template <typename Op, typename T, typename Thread>
QUIRE_DEVICE T ReduceWarp(const Thread& thread, T value) {
  QUIRE_UNROLL
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) value = Op()(value, thread.ShuffleXor(value, mask));
  return value;
}

// Every thread gets the result. `scratch` is shared memory of one T for each warp, and is free again afterwards.
template <typename Op, typename T, typename Thread>
QUIRE_DEVICE T ReduceCta(const Thread& thread, T value, T* scratch) {
  value = ReduceWarp<Op>(thread, value);
  if (thread.lane() == 0) scratch[thread.warp()] = value;
  thread.Sync();
  T result = scratch[0];
  for (int w = 1; w < thread.num_threads() / kWarpSize; ++w) result = Op()(result, scratch[w]);
  thread.Sync();
  return result;
}

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_CUDA_REDUCE_H_
