// The implementations of PagedAttention: what the backends call after checking the contract of paged_attention.h.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_IMPL_H_
#define QUIRE_KERNELS_PAGED_ATTENTION_IMPL_H_

#include <cstddef>

#include "absl/types/span.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/paged_attention/paged_attention.h"
#include "kernels/workspace.h"

namespace quire {

// The definition: two passes over the context in plain float32 loops. Allocates.
void RefPagedAttention(const PagedAttentionArgs& args);

// Bytes of `workspace` that CpuPagedAttention needs for calls within `shape` (q_heads, kv_heads, head_dim, max_context,
// quantized_cache count).
size_t CpuPagedAttentionWorkspaceBytes(const WorkspaceShape& shape, int num_threads);

// Allocates nothing. Every row has the same bits for any company, chunk borders, block size and number of threads.
// REQUIRES: `isa` is one of SupportedCpuIsas(); `workspace` is aligned to 64 bytes; the call lies within the
// workspace's shape.
void CpuPagedAttention(const PagedAttentionArgs& args, CpuIsa isa, ThreadPool& pool, absl::Span<char> workspace);

}  // namespace quire

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_IMPL_H_
