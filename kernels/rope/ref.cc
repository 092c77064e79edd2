#include <vector>

#include "kernels/paged_attention/kv_record.h"
#include "kernels/rope/impl.h"

namespace quire {
namespace {

// x, head_dim elements, is turned in place; cos and sin are those of its position.
void Turn(const RopeKvWriteArgs& args, const float* cos, const float* sin, float* x) {
  if (args.pairing == RopePairing::kNone) return;
  const int32_t half = RotaryDim(args) / 2;
  for (int32_t i = 0; i < half; ++i) {
    float& first = args.pairing == RopePairing::kHalves ? x[i] : x[2 * i];
    float& second = args.pairing == RopePairing::kHalves ? x[i + half] : x[2 * i + 1];
    const float a = first, b = second;
    first = a * cos[i] - b * sin[i];
    second = b * cos[i] + a * sin[i];
  }
}

}  // namespace

void RefRopeKvWrite(const RopeKvWriteArgs& args) {
  const PagedKv& kv = args.kv;
  const int64_t half = args.pairing == RopePairing::kNone ? 0 : RotaryDim(args) / 2;
  for (int64_t r = 0; r < args.q.rows; ++r) {
    const int64_t table_row = half > 0 ? args.positions[r] * half : 0;
    const float *cos = args.cos + table_row, *sin = args.sin + table_row;
    for (int64_t column = 0; column < args.q.cols; column += kv.head_dim) {
      Turn(args, cos, sin, args.q.Row<float>(r) + column);
    }
    const BlockId block = static_cast<BlockId>(args.slots[r] / kv.block_size);
    const int32_t slot = static_cast<int32_t>(args.slots[r] % kv.block_size);
    for (int32_t head = 0; head < kv.kv_heads; ++head) {
      const float* from = args.k.Row<float>(r) + head * kv.head_dim;
      std::vector<float> k(from, from + kv.head_dim);
      Turn(args, cos, sin, k.data());
      const float* v = args.v.Row<float>(r) + head * kv.head_dim;
      if (kv.quantized()) {
        const int64_t record = kv.RecordBegin(block, head, slot);
        WriteKvRecord(kv.quantization, k.data(), kv.head_dim, static_cast<char*>(kv.k) + record);
        WriteKvRecord(kv.quantization, v, kv.head_dim, static_cast<char*>(kv.v) + record);
        continue;
      }
      for (int32_t d = 0; d < kv.head_dim; ++d) {
        StoreFloat(kv.k, kv.dtype, kv.KIndex(block, head, slot, d), k[d]);
        StoreFloat(kv.v, kv.dtype, kv.VIndex(block, head, slot, d), v[d]);
      }
    }
  }
}

}  // namespace quire
