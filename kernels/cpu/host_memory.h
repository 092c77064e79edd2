// Memory of the backends whose device is the host.

#ifndef QUIRE_KERNELS_CPU_HOST_MEMORY_H_
#define QUIRE_KERNELS_CPU_HOST_MEMORY_H_

#include <cstddef>

#include "absl/status/statusor.h"
#include "kernels/tensor.h"

namespace quire {

// `bytes` of zeroes, aligned to 64 bytes, large ones to 2 MiB and in huge pages where the kernel grants them. Pages are
// placed where they are first written. RESOURCE_EXHAUSTED says what was asked for.
absl::StatusOr<Buffer> AllocateHostMemory(size_t bytes);

// The same, and a thread of its own writes to the pages from now on until all are there or the buffer is gone, so that
// nobody who uses the memory waits for the kernel to clear a page. Where the kernel cannot do that (Linux before 5.14),
// pages come when they are first written.
absl::StatusOr<Buffer> AllocateFaultedHostMemory(size_t bytes);

}  // namespace quire

#endif  // QUIRE_KERNELS_CPU_HOST_MEMORY_H_
