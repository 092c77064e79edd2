// Paged attention without tensor cores, for what they do not take: float32 caches and unusual head_dims. One CTA for
// each row and query head; warp w takes the positions t with t % kWarps == w, lanes take the dims. The order of
// summation is a function of the row's position alone. Right rather than fast.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_CUDA_PLAIN_CUH_
#define QUIRE_KERNELS_PAGED_ATTENTION_CUDA_PLAIN_CUH_

#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"
#include "kernels/paged_attention/cuda.h"
#include "kernels/paged_attention/cuda_tile.cuh"
#include "kernels/paged_attention/kv_codes.h"

namespace quire::cuda {

// A head's key or value, element by element. Query: what a query is rounded to.
template <typename E>
struct PlainElements {
  using Query = E;
  const E* head;
  QUIRE_DEVICE PlainElements(const PagedKv& kv, const void* data, BlockId block, int32_t kv_head, int32_t slot)
      : head(static_cast<const E*>(data) + kv.VIndex(block, kv_head, slot, 0)) {}
  QUIRE_DEVICE float operator[](int dim) const { return Load(head + dim); }
};

template <KvQuantization kQuantization>
struct PlainRecords {
  using Query = BFloat16;
  const char* record;
  float scale;
  QUIRE_DEVICE PlainRecords(const PagedKv& kv, const void* data, BlockId block, int32_t kv_head, int32_t slot)
      : record(static_cast<const char*>(data) + kv.RecordBegin(block, kv_head, slot)),
        scale(Load(reinterpret_cast<const BFloat16*>(record + kv.RecordBytes()) - 1)) {}
  QUIRE_DEVICE float operator[](int dim) const { return kv::FromRecord(kQuantization, record, dim) * scale; }
};

template <typename Elements>
struct PlainAttentionKernel {
  using E = typename Elements::Query;
  struct Params {
    const float* q;  // [num_rows, q_heads, head_dim], rows q_stride apart
    int64_t q_stride;
    void* out;  // the same of out_dtype, rows out_stride apart
    int64_t out_stride;
    DType out_dtype;
    const AttentionChunk* chunks;  // [num_chunks]
    int32_t num_chunks;
    int32_t q_heads;
    ScoreRule rule;
    PagedKv kv;
  };
  static constexpr int kThreads = 128;
  static constexpr int kMinCtas = 4;
  static constexpr int kWarps = kThreads / kWarpSize;
  static constexpr int kMaxDims = 256 / kWarpSize;  // of a lane
  struct WarpResult {
    float max, sum;
    float out[256];
  };
  static constexpr int kSharedBytes = kWarps * static_cast<int>(sizeof(WarpResult));

  static QUIRE_DEVICE float Rounded(float value) {
    E element;
    Store(&element, value);
    return Load(&element);
  }

  template <typename Thread>
  static QUIRE_DEVICE void Run(const Thread& thread, const Params& p) {
    const int32_t row = thread.cta() / p.q_heads, q_head = thread.cta() % p.q_heads;
    const int32_t kv_head = q_head / (p.q_heads / p.kv.kv_heads);
    int32_t low = 0, high = p.num_chunks;  // the row's chunk is in [low, high): the last that begins at or before it
    while (high - low > 1) {
      const int32_t middle = (low + high) / 2;
      (p.chunks[middle].first_row <= row ? low : high) = middle;
    }
    const AttentionChunk chunk = p.chunks[low];
    if (row >= chunk.first_row + chunk.num_rows) return;  // a row of no chunk
    const int32_t position = chunk.first_position + row - chunk.first_row;
    const BlockId* table = chunk.block_table;

    float q[kMaxDims], out[kMaxDims];
    QUIRE_UNROLL
    for (int j = 0; j < kMaxDims; ++j) {
      const int d = thread.lane() + j * kWarpSize;
      q[j] = d < p.kv.head_dim ? Rounded(p.q[row * p.q_stride + int64_t{q_head} * p.kv.head_dim + d]) : 0;
      out[j] = 0;
    }
    float max = kNegativeInfinity, sum = 0;
    const int32_t first = FirstVisible(position, p.rule.window);
    for (int32_t t = first / kWarps * kWarps + thread.warp(); t <= position; t += kWarps) {
      if (t < first) continue;
      const BlockId block = table[t / p.kv.block_size];
      const Elements key(p.kv, p.kv.k, block, kv_head, t % p.kv.block_size);
      const Elements value(p.kv, p.kv.v, block, kv_head, t % p.kv.block_size);
      float dot = 0;
      QUIRE_UNROLL
      for (int j = 0; j < kMaxDims; ++j) {
        const int d = thread.lane() + j * kWarpSize;
        if (d < p.kv.head_dim) dot += q[j] * key[d];
      }
      const float score = p.rule(ReduceWarp<Sum>(thread, dot), t, q_head);
      const float new_max = Max(max, score);
      const float base = new_max == kNegativeInfinity ? 0.0f : new_max;
      const float alpha = Exp2(max - base), weight = Exp2(score - base);
      max = new_max;
      sum = sum * alpha + weight;
      QUIRE_UNROLL
      for (int j = 0; j < kMaxDims; ++j) {
        const int d = thread.lane() + j * kWarpSize;
        if (d < p.kv.head_dim) out[j] = out[j] * alpha + weight * value[d];
      }
    }
    auto* results = reinterpret_cast<WarpResult*>(thread.shared());
    WarpResult& mine = results[thread.warp()];
    mine.max = max;
    mine.sum = sum;
    QUIRE_UNROLL
    for (int j = 0; j < kMaxDims; ++j) mine.out[thread.lane() + j * kWarpSize] = out[j];
    thread.Sync();
    for (int d = thread.thread(); d < p.kv.head_dim; d += kThreads) {
      float row_max = kNegativeInfinity, row_sum = 0, row_out = 0;
      for (int w = 0; w < kWarps; ++w) row_max = Max(row_max, results[w].max);
      const float base = row_max == kNegativeInfinity ? 0.0f : row_max;
      for (int w = 0; w < kWarps; ++w) {
        const float factor = Exp2(results[w].max - base);
        row_sum += factor * results[w].sum;
        row_out += factor * results[w].out[d];
      }
      StoreOut(p.out, p.out_dtype, row * p.out_stride + int64_t{q_head} * p.kv.head_dim + d,
               row_out / p.rule.WithSink(row_sum, base, q_head));
    }
  }
};

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_CUDA_PLAIN_CUH_
