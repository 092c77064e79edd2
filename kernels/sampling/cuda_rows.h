// Rows of the sampler on their way to the device: what a request may name of a vocabulary has no bound but the
// vocabulary, so staging holds any one row, and many of them as requests are; the rest of a call waits its turn.

#ifndef QUIRE_KERNELS_SAMPLING_CUDA_ROWS_H_
#define QUIRE_KERNELS_SAMPLING_CUDA_ROWS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/cuda/staging.h"
#include "kernels/sampling/cuda.h"

namespace quire::cuda {

constexpr size_t MaskWords(int64_t vocab_size) { return static_cast<size_t>(CeilDiv<int64_t>(vocab_size, 32)); }

// Ids to be taken out go as bits once they are more than bits would be.
constexpr bool NeedsMask(const quire::SampleRow& row, int64_t vocab_size) {
  return !row.allowed.empty() || row.banned.size() > MaskWords(vocab_size);
}

// With room for the token that the host has not seen.
inline size_t NumCounts(const quire::SampleRow& row) { return row.counts.size() + (row.drawn.has_value() ? 1 : 0); }

template <typename Device>
TokenCount* StageCounts(const quire::SampleRow& row, Staging<Device>& staging) {
  const size_t count = NumCounts(row);
  if (count == 0) return nullptr;
  const auto [host, copy] = staging.template Next<TokenCount>(count);
  host[count - 1] = {0, 0};
  std::copy(row.counts.begin(), row.counts.end(), host);
  return copy;
}

// What StageRow takes of the staging, and the row itself.
inline size_t StagedRowBytes(const quire::SampleRow& row, int64_t vocab_size) {
  const bool masked = NeedsMask(row, vocab_size);
  return StagedBytes<SampleRow>(1) + StagedBytes<uint32_t>(masked ? MaskWords(vocab_size) : row.banned.size()) +
         StagedBytes<TokenBias>(row.bias.size()) + StagedBytes<TokenCount>(NumCounts(row));
}

// How many of the first rows fit at once. REQUIRES: there is one.
template <typename Device>
size_t NumRowsThatFit(absl::Span<const quire::SampleRow> rows, int64_t vocab_size, const Staging<Device>& staging) {
  size_t bytes = 0, count = 0;
  while (count < rows.size()) {
    bytes += StagedRowBytes(rows[count], vocab_size);
    if (bytes > staging.bytes_left()) break;
    ++count;
  }
  return count;
}

// `drawn`: the tokens of the step before, on the device.
template <typename Device>
SampleRow StageRow(const quire::SampleRow& row, int64_t vocab_size, const SampledToken* drawn,
                   Staging<Device>& staging) {
  const auto size = [](const auto& span) { return static_cast<int32_t>(span.size()); };
  SampleRow staged{.params = *row.params,
                   .position = row.position,
                   .bias = staging.Put(row.bias.data(), row.bias.size()),
                   .counts = StageCounts(row, staging),
                   .drawn = row.drawn.has_value() ? drawn + *row.drawn : nullptr,
                   .num_bias = size(row.bias),
                   .num_counts = static_cast<int32_t>(NumCounts(row)),
                   .wants_logprob = row.wants_logprob,
                   .num_top = row.num_top};
  if (!NeedsMask(row, vocab_size)) {
    staged.banned = staging.Put(row.banned.data(), row.banned.size());
    staged.num_banned = size(row.banned);
    return staged;
  }
  const auto [mask, copy] = staging.template Next<uint32_t>(MaskWords(vocab_size));
  std::fill_n(mask, MaskWords(vocab_size), row.allowed.empty() ? ~0u : 0u);
  for (const uint32_t id : row.allowed) mask[id / 32] |= 1u << id % 32;
  for (const uint32_t id : row.banned) mask[id / 32] &= ~(1u << id % 32);
  staged.mask = copy;
  return staged;
}

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_SAMPLING_CUDA_ROWS_H_
