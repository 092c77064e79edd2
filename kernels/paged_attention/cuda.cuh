// The host side of kernels/paged_attention/cuda.h: which kernels a call takes, and how many CTAs.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_CUDA_CUH_
#define QUIRE_KERNELS_PAGED_ATTENTION_CUDA_CUH_

#include <type_traits>

#include "kernels/check.h"
#include "kernels/cuda/launch.h"
#include "kernels/paged_attention/cuda.h"
#include "kernels/paged_attention/cuda_decode.cuh"
#include "kernels/paged_attention/cuda_plain.cuh"
#include "kernels/paged_attention/cuda_plan.cuh"
#include "kernels/paged_attention/cuda_prefill.cuh"

namespace quire::cuda {

inline ScoreRule RuleOf(const PagedAttentionArgs& args) {
  return {args.scale, args.softcap == 0 && args.alibi_slopes == nullptr, args.softcap, args.sinks, args.alibi_slopes,
          args.window};
}

// Head slices of a group and the CTAs that fill the device, as planner and decode kernel must agree on them.
template <typename Kernel, typename Device>
void RunDecode(const PagedAttentionArgs& args, const AttentionContext& context, Device& device) {
  const int32_t group = args.q_heads / args.kv.kv_heads;
  const int32_t num_slices = CeilDiv(group, Kernel::kHeads);
  const int64_t num_ctas = device.template MaxCtas<Kernel>(Kernel::kSharedBytes);
  if (!context.has_plan) {
    device.template Run<AttentionPlanKernel>(
        1, sizeof(AttentionPlanKernel::Shared),
        {args.chunks, args.num_chunks, static_cast<int32_t>(num_ctas), args.kv.kv_heads * num_slices,
         args.window, kPrefillRows / group, context.deterministic, context.plan});
  }
  if (!context.has_decodes || context.deterministic) return;
  device.template Run<Kernel>(num_ctas, Kernel::kSharedBytes,
                              {args.q.template Row<float>(0), args.q.row_stride, args.out.data, args.out.row_stride,
                               args.out.dtype, args.q_heads, group, num_slices, RuleOf(args), args.kv, context.plan});
}

// The widest tile of heads that a group fills, of those that leave room for the accumulators.
template <typename E, int kDim, typename Device>
void RunDecodeOfDim(const PagedAttentionArgs& args, const AttentionContext& context, Device& device) {
  const int32_t group = args.q_heads / args.kv.kv_heads;
  if (group <= 8) return RunDecode<DecodeKernel<E, kDim, 1>>(args, context, device);
  if (group <= 16 || kDim == 256) return RunDecode<DecodeKernel<E, kDim, 2>>(args, context, device);
  if constexpr (kDim <= 128) RunDecode<DecodeKernel<E, kDim, 4>>(args, context, device);
}

template <typename E, int kDim, typename Device>
void RunTiles(const PagedAttentionArgs& args, const AttentionContext& context, Device& device) {
  RunDecodeOfDim<E, kDim>(args, context, device);
  if (!context.has_prefills && !context.deterministic) return;
  using Kernel = PrefillKernel<E, kDim>;
  device.template Run<Kernel>(
      int64_t{context.num_prefill_items} * args.kv.kv_heads, Kernel::kSharedBytes,
      {args.q.template Row<float>(0), args.q.row_stride, args.out.data, args.out.row_stride, args.out.dtype,
       args.q_heads / args.kv.kv_heads, RuleOf(args), args.kv, context.plan.prefill_items});
}

template <typename E, typename Device>
void RunPlain(const PagedAttentionArgs& args, const AttentionContext& context, Device& device) {
  using Kernel = PlainAttentionKernel<E>;
  device.template Run<Kernel>(
      args.q.rows * args.q_heads, Kernel::kSharedBytes,
      {args.q.template Row<float>(0), args.q.row_stride, args.out.data, args.out.row_stride, args.out.dtype,
       args.chunks, args.num_chunks, args.q_heads, RuleOf(args), args.kv});
}

template <typename E, typename Device>
void RunAttention(const PagedAttentionArgs& args, const AttentionContext& context, Device& device) {
  if constexpr (!std::is_same_v<E, float>) {
    if (args.kv.head_dim % 8 == 0) {
      if (args.kv.head_dim <= 64) return RunTiles<E, 64>(args, context, device);
      if (args.kv.head_dim <= 128) return RunTiles<E, 128>(args, context, device);
      return RunTiles<E, 256>(args, context, device);
    }
  }
  RunPlain<E>(args, context, device);
}

template <typename Device>
void PagedAttention(const PagedAttentionArgs& args, const AttentionContext& context, Device& device) {
  Check(args.kv.key_layout == KeyLayout::kRows, "PagedAttention: cuda keeps keys in rows");
  Check(args.kv.head_dim <= 256 && args.q_heads / args.kv.kv_heads <= kMaxGroup, "PagedAttention: heads");
  WithElement(args.kv.dtype, [&]<typename E>(E) { RunAttention<E>(args, context, device); });
}

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_CUDA_CUH_
