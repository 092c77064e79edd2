// Sharing out the rows of an elementwise operation.

#ifndef QUIRE_KERNELS_CPU_PARALLEL_H_
#define QUIRE_KERNELS_CPU_PARALLEL_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "kernels/cpu/thread_pool.h"

namespace quire {

// Elements of work from which it pays to wake the workers: they take about 10 us, ten times what a Run costs.
constexpr int64_t kParallelElements = int64_t{64} << 10;

// Worker's part [begin, end) of `count` things in a row.
struct Share {
  int64_t begin;
  int64_t end;
};
inline Share ShareOf(int64_t count, int worker, int num_workers) {
  return {count * worker / num_workers, count * (worker + 1) / num_workers};
}

// Calls body(row) for every row of [0, rows), in several workers where rows * elements_per_row is large.
inline void ParallelRows(ThreadPool& pool, int64_t rows, int64_t elements_per_row,
                         absl::FunctionRef<void(int64_t row)> body) {
  if (rows < 2 || rows * elements_per_row < kParallelElements) {
    for (int64_t row = 0; row < rows; ++row) body(row);
    return;
  }
  pool.Run([&](int worker) {
    const Share share = ShareOf(rows, worker, pool.num_threads());
    for (int64_t row = share.begin; row < share.end; ++row) body(row);
  });
}

}  // namespace quire

#endif  // QUIRE_KERNELS_CPU_PARALLEL_H_
