// The kernel of kernels/rope/cuda.h: a thread for two dims of a head of q, k or v of a row: two that are turned
// together, or two of the rest. Rotation and the write of K and V are one launch.

#ifndef QUIRE_KERNELS_ROPE_CUDA_CUH_
#define QUIRE_KERNELS_ROPE_CUDA_CUH_

#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/rope/cuda.h"

namespace quire::cuda {

template <typename T>
struct RopeKvWriteKernel {
  struct Params {
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
  };
  static constexpr int kThreads = 256;
  static constexpr int kMinCtas = 4;

  template <typename Thread>
  static QUIRE_DEVICE void Run(const Thread& thread, const Params& p) {
    const int64_t row = thread.cta() / p.ctas_per_row;
    const int32_t half = p.kv.head_dim / 2;
    const int32_t pair = thread.cta() % p.ctas_per_row * kThreads + thread.thread();
    const int32_t head = pair / half, i = pair % half;  // of the q heads, then the k heads, then the v heads
    const int64_t slot = p.slots[row];
    if (head >= p.q_heads + 2 * p.kv.kv_heads || slot < 0) return;

    // The two dims: turned by the angle i, or, beyond rotary_dim, left as they are.
    const bool turns = p.pairing != RopePairing::kNone && 2 * i < p.rotary_dim;
    int32_t first = 2 * i, second = 2 * i + 1;
    if (turns && p.pairing == RopePairing::kHalves) {
      first = i;
      second = i + p.rotary_dim / 2;
    }
    float cos = 1, sin = 0;
    if (turns && head < p.q_heads + p.kv.kv_heads) {
      const int64_t angle = int64_t{p.positions[row]} * (p.rotary_dim / 2) + i;
      cos = p.cos[angle];
      sin = p.sin[angle];
    }

    if (head < p.q_heads) {
      if (!turns) return;
      float* x = p.q + row * p.q_stride + int64_t{head} * p.kv.head_dim;
      Turn(x[first], x[second], cos, sin, x[first], x[second]);
      return;
    }
    const auto block = static_cast<BlockId>(slot / p.kv.block_size);
    const auto offset = static_cast<int32_t>(slot % p.kv.block_size);
    const int32_t kv_head = (head - p.q_heads) % p.kv.kv_heads;
    if (head < p.q_heads + p.kv.kv_heads) {
      const float* x = p.k + row * p.k_stride + int64_t{kv_head} * p.kv.head_dim;
      float a = x[first], b = x[second];
      if (turns) Turn(a, b, cos, sin, a, b);
      T* k = static_cast<T*>(p.kv.k);
      Store(k + p.kv.KIndex(block, kv_head, offset, first), a);
      Store(k + p.kv.KIndex(block, kv_head, offset, second), b);
    } else {
      const float* x = p.v + row * p.v_stride + int64_t{kv_head} * p.kv.head_dim;
      T* v = static_cast<T*>(p.kv.v);
      Store(v + p.kv.VIndex(block, kv_head, offset, first), x[first]);
      Store(v + p.kv.VIndex(block, kv_head, offset, second), x[second]);
    }
  }

  // Each product and sum rounded, as on every backend.
  static QUIRE_DEVICE void Turn(float a, float b, float cos, float sin, float& first, float& second) {
    first = AddRounded(MultiplyRounded(a, cos), -MultiplyRounded(b, sin));
    second = AddRounded(MultiplyRounded(b, cos), MultiplyRounded(a, sin));
  }
};

template <typename Device>
void RopeKvWrite(const RopeKvWriteArgs& args, Device& device) {
  WithElement(args.kv.dtype, [&]<typename T>(T) {
    using Kernel = RopeKvWriteKernel<T>;
    const auto q_heads = static_cast<int32_t>(args.q.cols / args.kv.head_dim);
    const int32_t pairs = (q_heads + 2 * args.kv.kv_heads) * (args.kv.head_dim / 2);
    const int32_t ctas_per_row = CeilDiv(pairs, Kernel::kThreads);
    device.template Run<Kernel>(args.q.rows * ctas_per_row, 0,
                                {args.q.Row<float>(0), args.q.row_stride, args.k.Row<float>(0), args.k.row_stride,
                                 args.v.Row<float>(0), args.v.row_stride, args.positions, args.slots, args.cos,
                                 args.sin, args.kv, args.pairing, RotaryDim(args), q_heads, ctas_per_row});
  });
}

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_ROPE_CUDA_CUH_
