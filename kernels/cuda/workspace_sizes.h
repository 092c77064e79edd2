// What the CUDA backend allocates beside weights and cache, by shape: plain C++, so that memory can be planned where
// there is no device and no toolkit.

#ifndef QUIRE_KERNELS_CUDA_WORKSPACE_SIZES_H_
#define QUIRE_KERNELS_CUDA_WORKSPACE_SIZES_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/numbers.h"
#include "kernels/workspace.h"

namespace quire::cuda {

constexpr size_t kLinearWorkspaceBytes = size_t{32} << 20;  // what cuBLASLt recommends for Hopper
constexpr int32_t kMaxTop = 20;                             // log-probabilities of a row (sampling.h)

// Staged arrays (staging.h) begin at multiples of it.
constexpr size_t kStagingAlignment = 16;
template <typename T>
constexpr size_t StagedBytes(size_t count) {
  return RoundUp(count * sizeof(T), kStagingAlignment);
}

constexpr int32_t kMaxOutputs = 16;  // draws for one sequence

// The most that a step stages, of every array but the block tables; and of those.
size_t StagingBytes(const WorkspaceShape& shape);
size_t TableStagingBytes(const WorkspaceShape& shape);
// Of the sampler's rows and what they name: one row that names all it can, and up to 64 MiB for all rows of a call.
size_t RowStagingBytes(const WorkspaceShape& shape);
// Draws of a step: one for each sequence, or all of one with more outputs than there are seats.
size_t MaxDraws(const WorkspaceShape& shape);
// What a step brings: its tokens, then, call by call, log-probabilities of drawn tokens and of prompt rows.
size_t ResultBytes(const WorkspaceShape& shape);
// What it keeps of the tokens of the step before.
size_t DrawnBytes(const WorkspaceShape& shape);

// All of it, with attention's.
size_t WorkspaceBytes(const WorkspaceShape& shape, int32_t num_sms, size_t linear_workspace_bytes);

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_CUDA_WORKSPACE_SIZES_H_
