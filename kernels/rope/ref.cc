#include "kernels/rope/impl.h"

namespace quire {

void RefRopeKvWrite(const RopeKvWriteArgs& args) {
  const PagedKv& kv = args.kv;
  const int32_t half = kv.head_dim / 2;
  const int64_t q_heads = args.q.cols / kv.head_dim;
  for (int64_t r = 0; r < args.q.rows; ++r) {
    const float* cos = args.cos + int64_t{args.positions[r]} * half;
    const float* sin = args.sin + int64_t{args.positions[r]} * half;
    const BlockId block = static_cast<BlockId>(args.slots[r] / kv.block_size);
    const int32_t slot = static_cast<int32_t>(args.slots[r] % kv.block_size);
    for (int64_t head = 0; head < q_heads; ++head) {
      float* x = args.q.Row<float>(r) + head * kv.head_dim;
      for (int32_t i = 0; i < half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a * cos[i] - b * sin[i];
        x[i + half] = b * cos[i] + a * sin[i];
      }
    }
    for (int32_t head = 0; head < kv.kv_heads; ++head) {
      const float* k = args.k.Row<float>(r) + head * kv.head_dim;
      const float* v = args.v.Row<float>(r) + head * kv.head_dim;
      for (int32_t i = 0; i < half; ++i) {
        const float a = k[i], b = k[i + half];
        StoreFloat(kv.k, kv.dtype, kv.KIndex(block, head, slot, i), a * cos[i] - b * sin[i]);
        StoreFloat(kv.k, kv.dtype, kv.KIndex(block, head, slot, i + half), b * cos[i] + a * sin[i]);
      }
      for (int32_t d = 0; d < kv.head_dim; ++d) StoreFloat(kv.v, kv.dtype, kv.VIndex(block, head, slot, d), v[d]);
    }
  }
}

}  // namespace quire
