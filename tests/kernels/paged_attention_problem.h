// PagedAttentionProblem: sequences with their paged cache, and the answers of the implementations.
//
// Keys, values and queries are functions of (sequence, position, head, dim), so that the same rows can be asked in
// other chunks, blocks and company. Every slot is NaN that no sequence owns at a position below its chunk's end and
// within the window of the chunk's first row; blocks are given out in a shuffled order; behind the used entries of a
// block table, and before those of the window, stand block numbers far out of bounds. Slots of a quantised cache that
// nobody owns have scales of NaN.

#ifndef QUIRE_TESTS_KERNELS_PAGED_ATTENTION_PROBLEM_H_
#define QUIRE_TESTS_KERNELS_PAGED_ATTENTION_PROBLEM_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "kernels/check.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/dtype.h"
#include "kernels/paged_attention/impl.h"
#include "kernels/paged_attention/kv_record.h"

namespace quire {

struct AttentionShape {
  int32_t q_heads = 4;
  int32_t kv_heads = 2;
  int32_t head_dim = 64;
  int32_t block_size = 16;
  DType dtype = DType::kFloat32;
  DType out_dtype = DType::kFloat32;
  int32_t window = 0;
  float softcap = 0;
  bool sinks = false;  // noise of [-4, 4)
  bool alibi = false;  // slopes 2^-1, 2^-2, ..., and every third 0.3 of it in bfloat16
  KeyLayout key_layout = KeyLayout::kDimPairs;
  KvQuantization quantization = KvQuantization::kNone;  // then dtype is bfloat16
};

// Rows at positions [begin, begin + count) of a sequence.
struct ChunkOf {
  uint32_t sequence;
  int32_t begin;
  int32_t count;
};

// In [-1, 1).
inline float Noise(uint64_t kind, uint64_t sequence, uint64_t position, uint64_t head, uint64_t dim) {
  uint64_t x = (((kind * 131 + sequence) * 1000003 + position) * 257 + head) * 1009 + dim;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;  // splitmix64
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  x ^= x >> 31;
  return static_cast<float>(static_cast<int64_t>(x) * 0x1p-63);
}

class PagedAttentionProblem {
 public:
  PagedAttentionProblem(const AttentionShape& shape, const std::vector<ChunkOf>& chunks, uint32_t seed = 1)
      : shape_(shape) {
    int32_t num_rows = 0;
    int32_t num_blocks = 3;  // spare ones
    for (const ChunkOf& chunk : chunks) {
      num_rows += chunk.count;
      num_blocks += BlocksOf(chunk);
      longest_ = std::max(longest_, chunk.begin + chunk.count);
    }
    kv_ = {nullptr,        nullptr,        shape.dtype,      num_blocks,        shape.block_size,
           shape.kv_heads, shape.head_dim, shape.key_layout, shape.quantization};
    const int64_t elements = num_blocks * kv_.BlockElements();
    const size_t bytes = kv_.quantized() ? kv_.RecordBegin(num_blocks, 0, 0) : elements * DTypeBytes(shape.dtype);
    k_.resize(bytes, '\xff');
    v_.resize(bytes, '\xff');
    kv_.k = k_.data();
    kv_.v = v_.data();
    for (int64_t i = 0; i < (kv_.quantized() ? 0 : elements); ++i) {
      StoreFloat(kv_.k, shape.dtype, i, std::numeric_limits<float>::quiet_NaN());
      StoreFloat(kv_.v, shape.dtype, i, std::numeric_limits<float>::quiet_NaN());
    }
    std::vector<BlockId> free(num_blocks);
    std::iota(free.begin(), free.end(), 0);
    std::shuffle(free.begin(), free.end(), std::mt19937(seed));

    q_.resize(size_t(num_rows) * shape.q_heads * shape.head_dim);
    for (int32_t h = 0; h < shape.q_heads; ++h) {
      sinks_.push_back(4 * Noise(4, 0, 0, h, 0));
      const float slope = std::exp2(-1.0f - static_cast<float>(h % 8));
      slopes_.push_back(h % 3 == 2 ? ToFloat(ToBFloat16(0.3f * slope)) : slope);
    }
    tables_.resize(chunks.size());
    int32_t row = 0;
    for (size_t c = 0; c < chunks.size(); ++c) {
      const ChunkOf& chunk = chunks[c];
      tables_[c].assign(FirstEntry(chunk.begin, shape.window, shape.block_size), -(1 << 30));
      while (static_cast<int32_t>(tables_[c].size()) < BlocksOf(chunk)) {
        tables_[c].push_back(free.back());
        free.pop_back();
      }
      FillCache(chunk, tables_[c]);
      FillQueries(chunk, row);
      tables_[c].insert(tables_[c].end(), 40, 1 << 30);
      chunks_.push_back({tables_[c].data(), row, chunk.count, chunk.begin});
      row += chunk.count;
    }
    num_rows_ = row;
  }

  std::vector<float> Ref() {
    return Call([](const PagedAttentionArgs& args) { RefPagedAttention(args); });
  }

  std::vector<float> Cpu(CpuIsa isa, int num_threads) {
    ThreadPoolOptions options;
    options.num_threads = num_threads;
    auto pool = ThreadPool::Create(options);
    Check(pool.ok(), "thread pool");
    WorkspaceShape workspace_shape;
    workspace_shape.q_heads = shape_.q_heads;
    workspace_shape.kv_heads = shape_.kv_heads;
    workspace_shape.head_dim = shape_.head_dim;
    workspace_shape.max_context = longest_;
    workspace_shape.quantized_cache = kv_.quantized();
    const size_t bytes = CpuPagedAttentionWorkspaceBytes(workspace_shape, num_threads);
    std::vector<char> storage(bytes + 64, '\xff');  // NaN, to be seen if read before written
    char* aligned = storage.data() + (64 - reinterpret_cast<uintptr_t>(storage.data()) % 64) % 64;
    return Call(
        [&](const PagedAttentionArgs& args) { CpuPagedAttention(args, isa, **pool, absl::MakeSpan(aligned, bytes)); });
  }

  // Elements of a row of the answer.
  int64_t RowElements() const { return int64_t{shape_.q_heads} * shape_.head_dim; }

  float& q(int32_t row, int32_t q_head, int32_t dim) {
    return q_[(int64_t{row} * shape_.q_heads + q_head) * shape_.head_dim + dim];
  }
  void SetK(int32_t chunk, int32_t position, int32_t kv_head, int32_t dim, float value) {
    const BlockId block = tables_[chunk][position / kv_.block_size];
    StoreFloat(kv_.k, shape_.dtype, kv_.KIndex(block, kv_head, position % kv_.block_size, dim), value);
  }
  void SetV(int32_t chunk, int32_t position, int32_t kv_head, int32_t dim, float value) {
    const BlockId block = tables_[chunk][position / kv_.block_size];
    StoreFloat(kv_.v, shape_.dtype, kv_.VIndex(block, kv_head, position % kv_.block_size, dim), value);
  }
  // Of a quantised cache: head_dim elements.
  void SetHeads(int32_t chunk, int32_t position, int32_t kv_head, const std::vector<float>& k,
                const std::vector<float>& v) {
    WriteRecords(tables_[chunk][position / kv_.block_size], kv_head, position % kv_.block_size, k, v);
  }
  void set_scale(float scale) { scale_ = scale; }
  void set_sink(int32_t q_head, float sink) { sinks_[q_head] = sink; }
  void set_slope(int32_t q_head, float slope) { slopes_[q_head] = slope; }

 private:
  int32_t BlocksOf(const ChunkOf& chunk) const {
    return (chunk.begin + chunk.count + shape_.block_size - 1) / shape_.block_size;
  }

  void WriteRecords(BlockId block, int32_t kv_head, int32_t slot, const std::vector<float>& k,
                    const std::vector<float>& v) {
    const int64_t record = kv_.RecordBegin(block, kv_head, slot);
    WriteKvRecord(kv_.quantization, k.data(), kv_.head_dim, static_cast<char*>(kv_.k) + record);
    WriteKvRecord(kv_.quantization, v.data(), kv_.head_dim, static_cast<char*>(kv_.v) + record);
  }

  void FillCache(const ChunkOf& chunk, const std::vector<BlockId>& table) {
    for (int32_t t = FirstVisible(chunk.begin, shape_.window); t < chunk.begin + chunk.count; ++t) {
      const BlockId block = table[t / shape_.block_size];
      const int32_t slot = t % shape_.block_size;
      for (int32_t h = 0; h < shape_.kv_heads; ++h) {
        std::vector<float> k(shape_.head_dim), v(shape_.head_dim);
        for (int32_t d = 0; d < shape_.head_dim; ++d) {
          k[d] = 2 * Noise(1, chunk.sequence, t, h, d);
          v[d] = Noise(2, chunk.sequence, t, h, d);
        }
        if (kv_.quantized()) {
          WriteRecords(block, h, slot, k, v);
          continue;
        }
        for (int32_t d = 0; d < shape_.head_dim; ++d) {
          StoreFloat(kv_.k, shape_.dtype, kv_.KIndex(block, h, slot, d), k[d]);
          StoreFloat(kv_.v, shape_.dtype, kv_.VIndex(block, h, slot, d), v[d]);
        }
      }
    }
  }

  void FillQueries(const ChunkOf& chunk, int32_t row) {
    for (int32_t i = 0; i < chunk.count; ++i) {
      for (int32_t h = 0; h < shape_.q_heads; ++h) {
        for (int32_t d = 0; d < shape_.head_dim; ++d)
          q(row + i, h, d) = 3 * Noise(3, chunk.sequence, chunk.begin + i, h, d);
      }
    }
  }

 public:
  // The answer of any implementation: function(args) writes args.out.
  template <typename Function>
  std::vector<float> Call(const Function& function) {
    // Rows of q and out are a little apart, as in a wider tensor.
    const int64_t stride = RowElements() + 8;
    std::vector<float> q(num_rows_ * stride, std::numeric_limits<float>::quiet_NaN());
    for (int64_t r = 0; r < num_rows_; ++r) std::copy_n(&q_[r * RowElements()], RowElements(), &q[r * stride]);
    std::vector<char> out(num_rows_ * stride * DTypeBytes(shape_.out_dtype), '\x55');
    const std::vector<char> untouched = out;
    function(PagedAttentionArgs{{q.data(), DType::kFloat32, num_rows_, RowElements(), stride},
                                chunks_.data(),
                                static_cast<int32_t>(chunks_.size()),
                                shape_.q_heads,
                                scale_ > 0 ? scale_ : 1 / std::sqrt(static_cast<float>(shape_.head_dim)),
                                kv_,
                                {out.data(), shape_.out_dtype, num_rows_, RowElements(), stride},
                                shape_.window,
                                shape_.softcap,
                                shape_.sinks ? sinks_.data() : nullptr,
                                shape_.alibi ? slopes_.data() : nullptr});
    std::vector<float> result;
    for (int64_t r = 0; r < num_rows_; ++r) {
      for (int64_t i = 0; i < RowElements(); ++i)
        result.push_back(LoadFloat(out.data(), shape_.out_dtype, r * stride + i));
      const size_t begin = (r * stride + RowElements()) * DTypeBytes(shape_.out_dtype);
      const size_t end = (r + 1) * stride * DTypeBytes(shape_.out_dtype);
      Check(std::equal(out.begin() + begin, out.begin() + end, untouched.begin() + begin),
            "wrote beside the output's columns");
    }
    return result;
  }

 private:
  AttentionShape shape_;
  PagedKv kv_;
  std::vector<char> k_, v_;
  std::vector<float> q_;               // [num_rows, q_heads, head_dim]
  std::vector<float> sinks_, slopes_;  // [q_heads]
  std::vector<std::vector<BlockId>> tables_;
  std::vector<AttentionChunk> chunks_;
  int64_t num_rows_ = 0;
  int32_t longest_ = 0;
  float scale_ = 0;  // 0: 1 / sqrt(head_dim)
};

}  // namespace quire

#endif  // QUIRE_TESTS_KERNELS_PAGED_ATTENTION_PROBLEM_H_
