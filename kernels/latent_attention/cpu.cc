#include <cstdint>

#include "kernels/cpu/parallel.h"
#include "kernels/latent_attention/impl.h"

namespace quire {
namespace {

// x, 2 * half elements, turned on the way to `to`, which may be x.
void Turn(RopePairing pairing, const float* x, const float* cos, const float* sin, int32_t half,
          const CpuKernels& kernels, float* to) {
  if (pairing == RopePairing::kHalves) return kernels.rotate(x, x + half, cos, sin, half, to, to + half);
  for (int32_t i = 0; i < half; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    to[2 * i] = a * cos[i] - b * sin[i];
    to[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

void WriteRow(const LatentKvWriteArgs& args, int64_t row, const CpuKernels& kernels) {
  const LatentKv& cache = args.cache;
  const int32_t half = cache.rope_dim / 2, dtype = static_cast<int32_t>(cache.dtype);
  const float* const cos = args.cos + int64_t{args.positions[row]} * half;
  const float* const sin = args.sin + int64_t{args.positions[row]} * half;
  float* const q = args.q_rope.q.Row<float>(row);
  for (int64_t head = 0; head < args.num_heads; ++head) {
    float* const x = q + head * args.q_rope.head_stride;
    Turn(args.pairing, x, cos, sin, half, kernels, x);
  }
  const int64_t element = static_cast<int64_t>(DTypeBytes(cache.dtype));
  char* const slot =
      static_cast<char*>(cache.data) + cache.Index(static_cast<BlockId>(args.slots[row] / cache.block_size),
                                                   static_cast<int32_t>(args.slots[row] % cache.block_size), 0) *
                                           element;
  const float* const kv = args.kv.Row<float>(row);
  kernels.rms_norm[dtype](kv, args.norm_weight, args.epsilon, cache.latent_dim, slot);
  float key[kMaxLatentRopeDim];
  Turn(args.pairing, kv + cache.latent_dim, cos, sin, half, kernels, key);
  kernels.convert[dtype](key, cache.rope_dim, slot + cache.latent_dim * element);
}

}  // namespace

void CpuLatentKvWrite(const LatentKvWriteArgs& args, const CpuKernels& kernels, ThreadPool& pool) {
  ParallelRows(pool, args.kv.rows, args.num_heads * args.cache.rope_dim + args.kv.cols,
               [&](int64_t row) { WriteRow(args, row, kernels); });
}

}  // namespace quire
