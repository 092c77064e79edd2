// The implementations of Route and Moe behind the backends. Included by backends and tests.

#ifndef QUIRE_KERNELS_MOE_IMPL_H_
#define QUIRE_KERNELS_MOE_IMPL_H_

#include <cstddef>

#include "absl/types/span.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/linear/block_kernels.h"
#include "kernels/moe/moe.h"
#include "kernels/workspace.h"

namespace quire {

// Rows [row_begin, row_end) of Route, for `ref` and `cpu` alike. Allocates nothing.
void HostRoute(const RouteArgs& args, int64_t row_begin, int64_t row_end);

void RefMoe(const MoeArgs& args);

// Bytes of `workspace` that CpuMoe needs for calls within `shape`.
size_t CpuMoeWorkspaceBytes(const WorkspaceShape& shape);

// REQUIRES: `workspace` is aligned to 64 bytes; the call lies within the workspace's shape.
void CpuMoe(const MoeArgs& args, const CpuKernels& kernels, const BlockKernels& block_kernels, ThreadPool& pool,
            absl::Span<char> workspace);

}  // namespace quire

#endif  // QUIRE_KERNELS_MOE_IMPL_H_
