// PagedAttention as paged_attention.h defines it: plain loops over rows, heads and positions.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/paged_attention/impl.h"
#include "kernels/paged_attention/kv_record.h"
#include "kernels/paged_attention/paged_attention.h"
#include "kernels/paged_attention/paged_kv.h"

namespace quire {
namespace {

float ToCacheAndBack(float value, float) { return value; }
float ToCacheAndBack(float value, BFloat16) { return ToFloat(ToBFloat16(value)); }
float ToCacheAndBack(float value, Float16) { return ToFloat(ToFloat16(value)); }

void Store(const Tensor& out, int64_t row, int64_t col, float value) {
  switch (out.dtype) {
    case DType::kFloat32:
      out.Row<float>(row)[col] = value;
      return;
    case DType::kBFloat16:
      out.Row<BFloat16>(row)[col] = ToBFloat16(value);
      return;
    case DType::kFloat16:
      out.Row<Float16>(row)[col] = ToFloat16(value);
      return;
  }
}

template <typename T>
float LoadK(const PagedKv& kv, BlockId block, int32_t kv_head, int32_t slot, int32_t dim) {
  if (!kv.quantized()) return ToFloat(static_cast<const T*>(kv.k)[kv.KIndex(block, kv_head, slot, dim)]);
  const char* record = static_cast<const char*>(kv.k) + kv.RecordBegin(block, kv_head, slot);
  return LoadKvRecord(kv.quantization, record, kv.head_dim, dim);
}

template <typename T>
float LoadV(const PagedKv& kv, BlockId block, int32_t kv_head, int32_t slot, int32_t dim) {
  if (!kv.quantized()) return ToFloat(static_cast<const T*>(kv.v)[kv.VIndex(block, kv_head, slot, dim)]);
  const char* record = static_cast<const char*>(kv.v) + kv.RecordBegin(block, kv_head, slot);
  return LoadKvRecord(kv.quantization, record, kv.head_dim, dim);
}

// One row and one query head: `position` is the row's own.
template <typename T>
void AttendHead(const PagedAttentionArgs& args, const BlockId* block_table, int64_t row, int32_t position,
                int32_t q_head) {
  const PagedKv& kv = args.kv;
  const int32_t group = args.q_heads / kv.kv_heads;
  const int32_t kv_head = q_head / group;
  const float* q = args.q.Row<float>(row) + int64_t{q_head} * kv.head_dim;
  const int32_t first = FirstVisible(position, args.window);

  std::vector<float> weight(position + 1);  // by position: scores first, then their softmax without the division
  float max_score = args.sinks != nullptr ? args.sinks[q_head] : -std::numeric_limits<float>::infinity();
  for (int32_t t = first; t <= position; ++t) {
    const BlockId block = block_table[t / kv.block_size];
    float dot = 0;
    for (int32_t d = 0; d < kv.head_dim; ++d) {
      dot += ToCacheAndBack(q[d], T{}) * LoadK<T>(kv, block, kv_head, t % kv.block_size, d);
    }
    if (args.alibi_slopes != nullptr) {
      const float at = ToFloat(ToBFloat16(static_cast<float>(t)));
      dot += ToFloat(ToBFloat16(args.alibi_slopes[q_head] * at));
    }
    weight[t] = args.scale * dot;
    if (args.softcap > 0) weight[t] = args.softcap * std::tanh(weight[t] / args.softcap);
    max_score = std::max(max_score, weight[t]);
  }
  float sum = args.sinks != nullptr ? std::exp(args.sinks[q_head] - max_score) : 0;
  for (int32_t t = first; t <= position; ++t) {
    weight[t] = std::exp(weight[t] - max_score);
    sum += weight[t];
  }
  for (int32_t d = 0; d < kv.head_dim; ++d) {
    float mean = 0;
    for (int32_t t = first; t <= position; ++t) {
      const BlockId block = block_table[t / kv.block_size];
      mean += weight[t] * LoadV<T>(kv, block, kv_head, t % kv.block_size, d);
    }
    Store(args.out, row, int64_t{q_head} * kv.head_dim + d, mean / sum);
  }
}

template <typename T>
void Attend(const PagedAttentionArgs& args) {
  for (int32_t c = 0; c < args.num_chunks; ++c) {
    const AttentionChunk& chunk = args.chunks[c];
    for (int32_t i = 0; i < chunk.num_rows; ++i) {
      for (int32_t h = 0; h < args.q_heads; ++h) {
        AttendHead<T>(args, chunk.block_table, chunk.first_row + i, chunk.first_position + i, h);
      }
    }
  }
}

}  // namespace

void RefPagedAttention(const PagedAttentionArgs& args) {
  switch (args.kv.dtype) {
    case DType::kFloat32:
      return Attend<float>(args);
    case DType::kBFloat16:
      return Attend<BFloat16>(args);
    case DType::kFloat16:
      return Attend<Float16>(args);
  }
}

}  // namespace quire
