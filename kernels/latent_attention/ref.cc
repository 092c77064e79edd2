// Latent attention as latent_attention.h defines it: plain loops.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/latent_attention/impl.h"

namespace quire {
namespace {

// x, rope_dim elements, is turned in place; cos and sin are those of its position.
void Turn(RopePairing pairing, const float* cos, const float* sin, int32_t half, float* x) {
  for (int32_t i = 0; i < half; ++i) {
    float& first = pairing == RopePairing::kHalves ? x[i] : x[2 * i];
    float& second = pairing == RopePairing::kHalves ? x[i + half] : x[2 * i + 1];
    const float a = first, b = second;
    first = a * cos[i] - b * sin[i];
    second = b * cos[i] + a * sin[i];
  }
}

float RoundTo(DType dtype, float value) {
  float storage = 0;
  StoreFloat(&storage, dtype, 0, value);
  return LoadFloat(&storage, dtype, 0);
}

// One row and one head: `position` is the row's own.
void AttendHead(const LatentAttentionArgs& args, const BlockId* block_table, int64_t row, int32_t position,
                int32_t head) {
  const LatentKv& kv = args.kv;
  std::vector<float> q(static_cast<size_t>(kv.dim()));
  for (int32_t d = 0; d < kv.dim(); ++d) {
    q[d] = RoundTo(kv.dtype, d < kv.latent_dim
                                 ? args.q_latent.Row<float>(row)[int64_t{head} * kv.latent_dim + d]
                                 : args.q_rope.q.Row<float>(row)[head * args.q_rope.head_stride + d - kv.latent_dim]);
  }
  const auto cached = [&](int32_t t, int32_t d) {
    return LoadFloat(kv.data, kv.dtype, kv.Index(block_table[t / kv.block_size], t % kv.block_size, d));
  };
  std::vector<float> weight(static_cast<size_t>(position) + 1);  // scores first, then their softmax undivided
  float max_score = -std::numeric_limits<float>::infinity();
  for (int32_t t = 0; t <= position; ++t) {
    float dot = 0;
    for (int32_t d = 0; d < kv.dim(); ++d) dot += q[d] * cached(t, d);
    weight[t] = args.scale * dot;
    max_score = std::max(max_score, weight[t]);
  }
  float sum = 0;
  for (float& w : weight) sum += w = std::exp(w - max_score);
  for (int32_t d = 0; d < kv.latent_dim; ++d) {
    float mean = 0;
    for (int32_t t = 0; t <= position; ++t) mean += weight[t] * cached(t, d);
    StoreFloat(args.out.data, args.out.dtype, row * args.out.row_stride + int64_t{head} * kv.latent_dim + d,
               mean / sum);
  }
}

}  // namespace

void RefLatentKvWrite(const LatentKvWriteArgs& args) {
  const LatentKv& cache = args.cache;
  const int32_t half = cache.rope_dim / 2;
  for (int64_t r = 0; r < args.kv.rows; ++r) {
    const float* cos = args.cos + int64_t{args.positions[r]} * half;
    const float* sin = args.sin + int64_t{args.positions[r]} * half;
    for (int32_t head = 0; head < args.num_heads; ++head) {
      Turn(args.pairing, cos, sin, half, args.q_rope.q.Row<float>(r) + head * args.q_rope.head_stride);
    }
    const float* c = args.kv.Row<float>(r);
    const int64_t slot = cache.Index(static_cast<BlockId>(args.slots[r] / cache.block_size),
                                     static_cast<int32_t>(args.slots[r] % cache.block_size), 0);
    float squares = 0;
    for (int32_t i = 0; i < cache.latent_dim; ++i) squares += c[i] * c[i];
    const float root = std::sqrt(squares / static_cast<float>(cache.latent_dim) + args.epsilon);
    for (int32_t i = 0; i < cache.latent_dim; ++i) {
      StoreFloat(cache.data, cache.dtype, slot + i, c[i] / root * args.norm_weight[i]);
    }
    std::vector<float> key(c + cache.latent_dim, c + cache.dim());
    Turn(args.pairing, cos, sin, half, key.data());
    for (int32_t i = 0; i < cache.rope_dim; ++i) {
      StoreFloat(cache.data, cache.dtype, slot + cache.latent_dim + i, key[i]);
    }
  }
}

void RefLatentAttention(const LatentAttentionArgs& args) {
  for (int32_t c = 0; c < args.num_chunks; ++c) {
    const AttentionChunk& chunk = args.chunks[c];
    for (int32_t i = 0; i < chunk.num_rows; ++i) {
      for (int32_t h = 0; h < args.num_heads; ++h) {
        AttendHead(args, chunk.block_table, chunk.first_row + i, chunk.first_position + i, h);
      }
    }
  }
}

}  // namespace quire
