#include "kernels/cuda/workspace_sizes.h"

#include <algorithm>

#include "kernels/paged_attention/cuda.h"
#include "kernels/sampling/cuda.h"

namespace quire::cuda {

size_t StagingBytes(const WorkspaceShape& shape) {
  const auto rows = static_cast<size_t>(shape.max_rows), sequences = static_cast<size_t>(shape.max_sequences);
  const size_t of_group = StagedBytes<int64_t>(rows) + StagedBytes<AttentionChunk>(sequences);
  // The head may run over slices of one row: which row, and its target.
  const size_t head_rows = rows + sequences + kMaxOutputs;
  // Ids, positions, kept rows.
  return 3 * StagedBytes<uint32_t>(rows) + static_cast<size_t>(shape.num_kv_groups) * of_group +
         2 * head_rows * StagedBytes<uint32_t>(1);
}

size_t TableStagingBytes(const WorkspaceShape& shape) {
  const auto entries = static_cast<size_t>(CeilDiv<int64_t>(shape.max_context, shape.block_size));
  return static_cast<size_t>(shape.num_kv_groups) *
         StagedBytes<BlockId>(static_cast<size_t>(shape.max_sequences) * entries);
}

size_t RowStagingBytes(const WorkspaceShape& shape) {
  constexpr size_t kManyBiases = 1024;  // of a row among others
  constexpr size_t kMaxForMany = size_t{64} << 20;
  const auto vocab = static_cast<size_t>(shape.vocab_size);
  const size_t of_any = StagedBytes<SampleRow>(1) + StagedBytes<uint32_t>(CeilDiv<size_t>(vocab, 32)) +
                        StagedBytes<TokenCount>(std::min(vocab, static_cast<size_t>(shape.max_context)) + 1);
  const size_t of_many = of_any + StagedBytes<TokenBias>(std::min(vocab, kManyBiases));
  return std::max(of_any + StagedBytes<TokenBias>(vocab),
                  std::min(static_cast<size_t>(shape.max_head_rows) * of_many, kMaxForMany));
}

size_t MaxDraws(const WorkspaceShape& shape) {
  return static_cast<size_t>(std::max({int64_t{shape.max_sequences}, shape.max_head_rows, int64_t{kMaxOutputs}}));
}

size_t ResultBytes(const WorkspaceShape& shape) {
  const auto rows = static_cast<size_t>(shape.max_rows);
  return StagedBytes<SampledToken>(MaxDraws(shape)) +
         (MaxDraws(shape) + rows) * kMaxTop * StagedBytes<TokenLogprob>(1) + rows * StagedBytes<float>(1);
}

size_t DrawnBytes(const WorkspaceShape& shape) { return StagedBytes<SampledToken>(MaxDraws(shape)); }

size_t WorkspaceBytes(const WorkspaceShape& shape, int32_t num_sms, size_t linear_workspace_bytes) {
  return linear_workspace_bytes + AttentionWorkspaceBytes(shape, num_sms) + StagingBytes(shape) +
         TableStagingBytes(shape) + RowStagingBytes(shape) + ResultBytes(shape) + DrawnBytes(shape);
}

}  // namespace quire::cuda
