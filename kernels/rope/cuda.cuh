// The kernels of kernels/rope/cuda.h. Rotation and the write of K and V are one launch. A thread takes two dims of a
// head of q, k or v of a row: two that are turned together, or two of the rest; or, of a quantised cache, a warp takes
// a head, for a record's scale is that of all its elements.

#ifndef QUIRE_KERNELS_ROPE_CUDA_CUH_
#define QUIRE_KERNELS_ROPE_CUDA_CUH_

#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"
#include "kernels/paged_attention/kv_codes.h"
#include "kernels/rope/cuda.h"

namespace quire::cuda {

struct RopeKvWriteParams {
  float* q;  // [num_rows, q_heads, head_dim], rows q_stride apart; in place
  int64_t q_stride;
  const float* k;  // [num_rows, kv_heads, head_dim], rows k_stride apart
  int64_t k_stride;
  const float* v;  // [num_rows, kv_heads, head_dim], rows v_stride apart
  int64_t v_stride;
  const int32_t* positions;  // [num_rows]
  const int64_t* slots;      // [num_rows]; kNoSlot: a row that only fills up a CUDA graph, nothing is written
  const float* cos;          // [positions, rotary_dim / 2]
  const float* sin;
  PagedKv kv;
  RopePairing pairing;
  int32_t rotary_dim;
  int32_t q_heads;
  int32_t ctas_per_row;

  // Of the q heads, then the k heads, then the v heads.
  QUIRE_DEVICE int32_t num_heads() const { return q_heads + 2 * kv.kv_heads; }
  QUIRE_DEVICE bool IsQuery(int32_t head) const { return head < q_heads; }
  QUIRE_DEVICE bool IsKey(int32_t head) const { return !IsQuery(head) && head < q_heads + kv.kv_heads; }
  QUIRE_DEVICE int32_t KvHead(int32_t head) const { return (head - q_heads) % kv.kv_heads; }
  QUIRE_DEVICE const float* Elements(int64_t row, int32_t head) const {
    if (IsQuery(head)) return q + row * q_stride + int64_t{head} * kv.head_dim;
    if (IsKey(head)) return k + row * k_stride + int64_t{KvHead(head)} * kv.head_dim;
    return v + row * v_stride + int64_t{KvHead(head)} * kv.head_dim;
  }
};

// Dims `first` and `second` of a head, turned by the angle i if they are turned together.
struct RopePair {
  int32_t first, second;
  float a, b;

  QUIRE_DEVICE RopePair(const RopeKvWriteParams& p, int64_t row, int32_t head, int32_t i)
      : first(2 * i), second(2 * i + 1) {
    const bool turns = p.pairing != RopePairing::kNone && 2 * i < p.rotary_dim;
    if (turns && p.pairing == RopePairing::kHalves) {
      first = i;
      second = i + p.rotary_dim / 2;
    }
    const float* x = p.Elements(row, head);
    a = x[first];
    b = x[second];
    if (!turns || !(p.IsQuery(head) || p.IsKey(head))) return;
    const int64_t angle = int64_t{p.positions[row]} * (p.rotary_dim / 2) + i;
    const float cos = p.cos[angle], sin = p.sin[angle], before = a;
    // Each product and sum rounded, as on every backend.
    a = AddRounded(MultiplyRounded(before, cos), -MultiplyRounded(b, sin));
    b = AddRounded(MultiplyRounded(b, cos), MultiplyRounded(before, sin));
  }
};

template <typename T>
struct RopeKvWriteKernel {
  using Params = RopeKvWriteParams;
  static constexpr int kThreads = 256;
  static constexpr int kMinCtas = 4;
  static constexpr int kSharedBytes = 0;

  template <typename Thread>
  static QUIRE_DEVICE void Run(const Thread& thread, const Params& p) {
    const int64_t row = thread.cta() / p.ctas_per_row;
    const int32_t half = p.kv.head_dim / 2;
    const int32_t pair = thread.cta() % p.ctas_per_row * kThreads + thread.thread();
    const int32_t head = pair / half;
    const int64_t slot = p.slots[row];
    if (head >= p.num_heads() || slot < 0) return;
    const RopePair turned(p, row, head, pair % half);
    if (p.IsQuery(head)) {
      float* x = p.q + row * p.q_stride + int64_t{head} * p.kv.head_dim;
      x[turned.first] = turned.a;
      x[turned.second] = turned.b;
      return;
    }
    const auto block = static_cast<BlockId>(slot / p.kv.block_size);
    const auto offset = static_cast<int32_t>(slot % p.kv.block_size);
    const bool is_key = p.IsKey(head);
    T* to = static_cast<T*>(is_key ? p.kv.k : p.kv.v);
    const auto index = [&](int32_t dim) {
      return is_key ? p.kv.KIndex(block, p.KvHead(head), offset, dim) : p.kv.VIndex(block, p.KvHead(head), offset, dim);
    };
    Store(to + index(turned.first), turned.a);
    Store(to + index(turned.second), turned.b);
  }
};

struct RopeRecordWriteKernel {
  using Params = RopeKvWriteParams;
  static constexpr int kThreads = 256;
  static constexpr int kMinCtas = 4;
  static constexpr int kWarps = kThreads / kWarpSize;
  static constexpr int kMaxHeadDim = 256;
  static constexpr int kSharedBytes = kWarps * kMaxHeadDim * static_cast<int>(sizeof(float));

  template <typename Thread>
  static QUIRE_DEVICE void Run(const Thread& thread, const Params& p) {
    const int64_t row = thread.cta() / p.ctas_per_row;
    const int32_t head = thread.cta() % p.ctas_per_row * kWarps + thread.warp();
    const int64_t slot = p.slots[row];
    if (head >= p.num_heads() || slot < 0) return;
    // The head's elements, turned; of a key or value, in shared memory.
    float* to = p.IsQuery(head) ? p.q + row * p.q_stride + int64_t{head} * p.kv.head_dim
                                : reinterpret_cast<float*>(thread.shared()) + thread.warp() * kMaxHeadDim;
    uint32_t largest = 0;
    for (int32_t i = thread.lane(); i < p.kv.head_dim / 2; i += kWarpSize) {
      const RopePair turned(p, row, head, i);
      to[turned.first] = turned.a;
      to[turned.second] = turned.b;
      largest = Max(largest, Max(kv::SizeBits(turned.a), kv::SizeBits(turned.b)));
    }
    if (p.IsQuery(head)) return;
    thread.SyncWarp();
    WriteRecord(thread, p, ReduceWarp<Maximum>(thread, largest), to,
                static_cast<char*>(p.IsKey(head) ? p.kv.k : p.kv.v) +
                    p.kv.RecordBegin(static_cast<BlockId>(slot / p.kv.block_size), p.KvHead(head),
                                     static_cast<int32_t>(slot % p.kv.block_size)));
  }

  template <typename Thread>
  static QUIRE_DEVICE void WriteRecord(const Thread& thread, const Params& p, uint32_t largest, const float* x,
                                       char* record) {
    const KvQuantization quantization = p.kv.quantization;
    const uint16_t scale_bits = kv::ScaleBits(quantization, largest);
    const float scale = kv::Scale(scale_bits);
    if (thread.lane() == 0) reinterpret_cast<BFloat16*>(record + p.kv.RecordBytes())[-1].bits = scale_bits;
    const auto code = [&](int32_t d) {
      return kv::HasCodes(scale) ? kv::ToCode(quantization, x[d], scale) : uint8_t{0};
    };
    for (int32_t d = 2 * thread.lane(); d < p.kv.head_dim; d += 2 * kWarpSize) {
      const uint8_t low = code(d), high = code(d + 1);
      if (quantization == KvQuantization::kInt4) {
        record[d / 2] = static_cast<char>(low | high << 4);
      } else {
        *reinterpret_cast<uint16_t*>(record + d) = static_cast<uint16_t>(low | high << 8);
      }
    }
  }
};

template <typename Device>
void RopeKvWrite(const RopeKvWriteArgs& args, Device& device) {
  const auto q_heads = static_cast<int32_t>(args.q.cols / args.kv.head_dim);
  const int32_t num_heads = q_heads + 2 * args.kv.kv_heads;
  const auto run = [&]<typename Kernel>(int32_t ctas_per_row, Kernel) {
    device.template Run<Kernel>(args.q.rows * ctas_per_row,
                                {args.q.Row<float>(0), args.q.row_stride, args.k.Row<float>(0), args.k.row_stride,
                                 args.v.Row<float>(0), args.v.row_stride, args.positions, args.slots, args.cos,
                                 args.sin, args.kv, args.pairing, RotaryDim(args), q_heads, ctas_per_row});
  };
  using Records = RopeRecordWriteKernel;
  if (args.kv.quantized()) return run(CeilDiv(num_heads, Records::kWarps), Records());
  WithElement(args.kv.dtype, [&]<typename T>(T) {
    using Kernel = RopeKvWriteKernel<T>;
    run(CeilDiv(num_heads * (args.kv.head_dim / 2), Kernel::kThreads), Kernel());
  });
}

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_ROPE_CUDA_CUH_
