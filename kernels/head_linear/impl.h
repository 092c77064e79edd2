// The implementations of HeadLinear behind the backends. Included by backends and tests.

#ifndef QUIRE_KERNELS_HEAD_LINEAR_IMPL_H_
#define QUIRE_KERNELS_HEAD_LINEAR_IMPL_H_

#include <cstddef>

#include "absl/types/span.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/head_linear/head_linear.h"
#include "kernels/workspace.h"

namespace quire {

void RefHeadLinear(const HeadLinearArgs& args);

// Bytes of `workspace` that CpuHeadLinear needs for calls within `shape`.
size_t CpuHeadLinearWorkspaceBytes(const WorkspaceShape& shape, int num_threads);

// REQUIRES: `workspace` is aligned to 64 bytes; the call lies within the workspace's shape.
void CpuHeadLinear(const HeadLinearArgs& args, const CpuKernels& kernels, ThreadPool& pool, absl::Span<char> workspace);

}  // namespace quire

#endif  // QUIRE_KERNELS_HEAD_LINEAR_IMPL_H_
