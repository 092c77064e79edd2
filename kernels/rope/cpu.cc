#include <algorithm>

#include "kernels/cpu/parallel.h"
#include "kernels/paged_attention/kv_record.h"
#include "kernels/paged_attention/tile.h"
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

// Turns x, in place or on the way to `to`: rotary_dim elements.
void TurnInterleaved(const float* x, const float* cos, const float* sin, int32_t half, float* to) {
  for (int32_t i = 0; i < half; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    to[2 * i] = a * cos[i] - b * sin[i];
    to[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

void WriteTurnedK(const RopeKvWriteArgs& args, const float* k, const float* cos, const float* sin, BlockId block,
                  int32_t head, int32_t slot, const CpuKernels& kernels) {
  const PagedKv& kv = args.kv;
  const int32_t half = args.pairing == RopePairing::kNone ? 0 : RotaryDim(args) / 2;
  for (int32_t i = 0; i < half; i += kDims) {
    const int32_t count = std::min(kDims, half - i);
    if (args.pairing == RopePairing::kHalves) {
      float a[kDims], b[kDims];
      kernels.rotate(k + i, k + half + i, cos + i, sin + i, count, a, b);
      WriteK(a, count, block, head, slot, i, kv, kernels);
      WriteK(b, count, block, head, slot, half + i, kv, kernels);
    } else {
      float turned[2 * kDims];
      TurnInterleaved(k + 2 * i, cos + i, sin + i, count, turned);
      WriteK(turned, count, block, head, slot, 2 * i, kv, kernels);
      WriteK(turned + count, count, block, head, slot, 2 * i + count, kv, kernels);
    }
  }
  for (int32_t i = 2 * half; i < kv.head_dim; i += kDims) {
    WriteK(k + i, std::min(kDims, kv.head_dim - i), block, head, slot, i, kv, kernels);
  }
}

// A record needs the largest element, so the whole head is turned first.
void WriteRecords(const RopeKvWriteArgs& args, const float* k, const float* v, const float* cos, const float* sin,
                  int64_t record, const CpuKernels& kernels) {
  const PagedKv& kv = args.kv;
  const int32_t half = args.pairing == RopePairing::kNone ? 0 : RotaryDim(args) / 2;
  float turned[attention::kMaxHeadDim];
  if (args.pairing == RopePairing::kInterleaved) {
    TurnInterleaved(k, cos, sin, half, turned);
  } else {
    kernels.rotate(k, k + half, cos, sin, half, turned, turned + half);
  }
  std::copy(k + 2 * half, k + kv.head_dim, turned + 2 * half);
  WriteKvRecord(kv.quantization, turned, kv.head_dim, static_cast<char*>(kv.k) + record);
  WriteKvRecord(kv.quantization, v, kv.head_dim, static_cast<char*>(kv.v) + record);
}

void RopeRow(const RopeKvWriteArgs& args, int64_t row, const CpuKernels& kernels) {
  const PagedKv& kv = args.kv;
  const int32_t half = args.pairing == RopePairing::kNone ? 0 : RotaryDim(args) / 2;
  const int64_t table_row = half > 0 ? int64_t{args.positions[row]} * half : 0;
  const float *const cos = args.cos + table_row, *const sin = args.sin + table_row;
  for (int64_t column = 0; half > 0 && column < args.q.cols; column += kv.head_dim) {
    float* const x = args.q.Row<float>(row) + column;
    if (args.pairing == RopePairing::kHalves) {
      kernels.rotate(x, x + half, cos, sin, half, x, x + half);
    } else {
      TurnInterleaved(x, cos, sin, half, x);
    }
  }
  const BlockId block = static_cast<BlockId>(args.slots[row] / kv.block_size);
  const int32_t slot = static_cast<int32_t>(args.slots[row] % kv.block_size);
  for (int32_t head = 0; head < kv.kv_heads; ++head) {
    const float* const k = args.k.Row<float>(row) + head * kv.head_dim;
    const float* const v = args.v.Row<float>(row) + head * kv.head_dim;
    if (kv.quantized()) {
      WriteRecords(args, k, v, cos, sin, kv.RecordBegin(block, head, slot), kernels);
      continue;
    }
    WriteTurnedK(args, k, cos, sin, block, head, slot, kernels);
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
