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

// Has the kernel clear the pages of [data, data + bytes) now and not when they are first written. Where it cannot
// (Linux before 5.14), nothing happens.
void FaultIn(void* data, size_t bytes);

// The same by a thread that runs only when nobody else wants the CPU; it is gone when the buffer is. Whoever uses the
// memory meanwhile need not know. Memory that is small comes when it is written.
Buffer FaultInBackground(Buffer memory);

}  // namespace quire

#endif  // QUIRE_KERNELS_CPU_HOST_MEMORY_H_
