#include <algorithm>

#include "kernels/cpu/parallel.h"
#include "kernels/rope/impl.h"

namespace quire {
namespace {

// Dimensions of a head that are rotated at once on their way to the cache.
constexpr int32_t kDims = 64;

template <class T>
void Scatter(const T* values, int32_t count, BlockId block, int32_t head, int32_t slot, int32_t dim,
             const PagedKv& kv) {
  T* const k = static_cast<T*>(kv.k);
  for (int32_t i = 0; i < count; ++i) k[kv.KIndex(block, head, slot, dim + i)] = values[i];
}

// Rounds `count` dims of K from `dim` on and writes them to their places.
void WriteK(const float* values, int32_t count, BlockId block, int32_t head, int32_t slot, int32_t dim,
            const PagedKv& kv, const CpuKernels& kernels) {
  if (kv.dtype == DType::kFloat32) return Scatter(values, count, block, head, slot, dim, kv);
  uint16_t rounded[kDims];
  kernels.convert[static_cast<int>(kv.dtype)](values, count, rounded);
  Scatter(rounded, count, block, head, slot, dim, kv);
}

void RopeRow(const RopeKvWriteArgs& args, int64_t row, const CpuKernels& kernels) {
  const PagedKv& kv = args.kv;
  const int32_t half = kv.head_dim / 2;
  const float* const cos = args.cos + int64_t{args.positions[row]} * half;
  const float* const sin = args.sin + int64_t{args.positions[row]} * half;
  for (int64_t column = 0; column < args.q.cols; column += kv.head_dim) {
    float* const x = args.q.Row<float>(row) + column;
    kernels.rotate(x, x + half, cos, sin, half, x, x + half);
  }
  const BlockId block = static_cast<BlockId>(args.slots[row] / kv.block_size);
  const int32_t slot = static_cast<int32_t>(args.slots[row] % kv.block_size);
  for (int32_t head = 0; head < kv.kv_heads; ++head) {
    const float* const k = args.k.Row<float>(row) + head * kv.head_dim;
    for (int32_t i = 0; i < half; i += kDims) {
      float a[kDims], b[kDims];
      const int32_t count = std::min(kDims, half - i);
      kernels.rotate(k + i, k + half + i, cos + i, sin + i, count, a, b);
      WriteK(a, count, block, head, slot, i, kv, kernels);
      WriteK(b, count, block, head, slot, half + i, kv, kernels);
    }
    const float* const v = args.v.Row<float>(row) + head * kv.head_dim;
    char* const to =
        static_cast<char*>(kv.v) + kv.VIndex(block, head, slot, 0) * static_cast<int64_t>(DTypeBytes(kv.dtype));
    kernels.convert[static_cast<int>(kv.dtype)](v, kv.head_dim, to);
  }
}

}  // namespace

void CpuRopeKvWrite(const RopeKvWriteArgs& args, const CpuKernels& kernels, ThreadPool& pool) {
  ParallelRows(pool, args.q.rows, args.q.cols + args.k.cols * 4, [&](int64_t row) { RopeRow(args, row, kernels); });
}

}  // namespace quire
