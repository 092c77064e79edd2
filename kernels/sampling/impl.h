// The implementations of Sample and Score: what the backends call after checking the contract of sampling.h.

#ifndef QUIRE_KERNELS_SAMPLING_IMPL_H_
#define QUIRE_KERNELS_SAMPLING_IMPL_H_

#include <cstddef>

#include "absl/types/span.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/sampling/sampling.h"
#include "kernels/workspace.h"

namespace quire {

// The definition: sorts, and sums in plain loops. Allocate.
void RefSample(const SampleArgs& args);
void RefScore(const ScoreArgs& args);

// Bytes of `workspace` that CpuSample and CpuScore need for rows of shape.vocab_size logits.
size_t CpuSampleWorkspaceBytes(const WorkspaceShape& shape, int num_threads);

// The same tokens and log-probabilities as the definition, bit by bit, for every instruction set and number of threads.
// Allocate nothing. REQUIRES: `isa` is one of SupportedCpuIsas(); `workspace` is aligned to 64 bytes.
void CpuSample(const SampleArgs& args, CpuIsa isa, ThreadPool& pool, absl::Span<char> workspace);
void CpuScore(const ScoreArgs& args, CpuIsa isa, ThreadPool& pool, absl::Span<char> workspace);

}  // namespace quire

#endif  // QUIRE_KERNELS_SAMPLING_IMPL_H_
