// The implementations of latent attention behind the backends. Included by backends and tests.

#ifndef QUIRE_KERNELS_LATENT_ATTENTION_IMPL_H_
#define QUIRE_KERNELS_LATENT_ATTENTION_IMPL_H_

#include <cstddef>

#include "absl/types/span.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/latent_attention/latent_attention.h"
#include "kernels/workspace.h"

namespace quire {

void RefLatentKvWrite(const LatentKvWriteArgs& args);
void CpuLatentKvWrite(const LatentKvWriteArgs& args, const CpuKernels& kernels, ThreadPool& pool);

// Two passes over the context in plain float32 loops. Allocates.
void RefLatentAttention(const LatentAttentionArgs& args);

// Bytes of `workspace` that CpuLatentAttention needs for calls of at most this many heads within `shape`.
size_t CpuLatentAttentionWorkspaceBytes(const WorkspaceShape& shape, int num_threads);

// As CpuPagedAttention.
void CpuLatentAttention(const LatentAttentionArgs& args, CpuIsa isa, ThreadPool& pool, absl::Span<char> workspace);

}  // namespace quire

#endif  // QUIRE_KERNELS_LATENT_ATTENTION_IMPL_H_
