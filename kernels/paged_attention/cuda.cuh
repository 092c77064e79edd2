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
#include "kernels/paged_attention/cuda_prefill_mma.cuh"
#include "kernels/paged_attention/cuda_prefill_wgmma.cuh"

namespace quire::cuda {

// The least of the kernels' head_dims that holds head_dim.
template <typename Function>
void WithDim(int32_t head_dim, const Function& function) {
  if (head_dim <= 64) return function(std::integral_constant<int, 64>());
  if (head_dim <= 128) return function(std::integral_constant<int, 128>());
  function(std::integral_constant<int, 256>());
}

inline ScoreRule RuleOf(const PagedAttentionArgs& args) {
  return {args.scale, args.softcap == 0 && args.alibi_slopes == nullptr, args.softcap, args.sinks, args.alibi_slopes,
          args.window};
}

// Head slices of a group and the CTAs that fill the device, as planner and decode kernel must agree on them.
template <typename Kernel, typename Device>
void RunDecode(const PagedAttentionArgs& args, const AttentionContext& context, Device& device) {
  const int32_t group = args.q_heads / args.kv.kv_heads;
  const int32_t num_slices = CeilDiv(group, Kernel::kHeads);
  const int64_t num_ctas =
      Min<int64_t>(device.template MaxCtas<Kernel>(), int64_t{kMaxDecodeCtasPerSm} * device.info().num_sms);
  if (!context.has_plan) {
    device.template Run<AttentionPlanKernel>(
        1, {args.chunks, args.num_chunks, static_cast<int32_t>(num_ctas), args.kv.kv_heads * num_slices, args.window,
            PrefillRows(context.prefills_by_wgmma) / group, context.deterministic, context.plan});
  }
  if (!context.has_decodes || context.deterministic) return;
  device.template Run<Kernel>(
      num_ctas, {args.q.template Row<float>(0), args.q.row_stride, args.out.data, args.out.row_stride, args.out.dtype,
                 args.q_heads, group, num_slices, RuleOf(args), args.kv, context.plan});
}

// The widest tile of heads that a group fills, of those that leave room for the accumulators.
template <typename Tiles, typename Device>
void RunDecodeOf(const PagedAttentionArgs& args, const AttentionContext& context, Device& device) {
  constexpr bool kIsWide = Tiles::kSteps > 8;
  const int32_t group = args.q_heads / args.kv.kv_heads;
  if (group <= 8) return RunDecode<DecodeKernel<Tiles, 1>>(args, context, device);
  if (group <= 16 || kIsWide) return RunDecode<DecodeKernel<Tiles, 2>>(args, context, device);
  if constexpr (!kIsWide) RunDecode<DecodeKernel<Tiles, 4>>(args, context, device);
}

template <typename Tiles, typename Device>
void RunPrefillOf(const PagedAttentionArgs& args, const AttentionContext& context, Device& device) {
  using Kernel = PrefillKernel<Tiles>;
  device.template Run<Kernel>(
      int64_t{context.num_prefill_items} * args.kv.kv_heads,
      {args.q.template Row<float>(0), args.q.row_stride, args.out.data, args.out.row_stride, args.out.dtype,
       args.q_heads / args.kv.kv_heads, RuleOf(args), args.kv, context.plan.prefill_items, context.plan.counters});
}

template <typename DecodeTiles, typename MmaTiles, typename WgmmaTiles, typename Device>
void RunTiles(const PagedAttentionArgs& args, const AttentionContext& context, Device& device) {
  RunDecodeOf<DecodeTiles>(args, context, device);
  if (!context.has_prefills && !context.deterministic) return;
  if (context.prefills_by_wgmma) return RunPrefillOf<WgmmaTiles>(args, context, device);
  RunPrefillOf<MmaTiles>(args, context, device);
}

template <typename Elements, typename Device>
void RunPlain(const PagedAttentionArgs& args, const AttentionContext& context, Device& device) {
  using Kernel = PlainAttentionKernel<Elements>;
  device.template Run<Kernel>(args.q.rows * args.q_heads,
                              {args.q.template Row<float>(0), args.q.row_stride, args.out.data, args.out.row_stride,
                               args.out.dtype, args.chunks, args.num_chunks, args.q_heads, RuleOf(args), args.kv});
}

template <typename E, typename Device>
void RunAttention(const PagedAttentionArgs& args, const AttentionContext& context, Device& device) {
  if constexpr (!std::is_same_v<E, float>) {
    const auto run = [&]<int kDim>(std::integral_constant<int, kDim>) {
      RunTiles<ElementTiles<E, kDim>, ElementChunkTiles<MmaProducts<E, kDim>>,
               ElementChunkTiles<WgmmaProducts<E, kDim>>>(args, context, device);
    };
    if (args.kv.head_dim % 8 == 0) return WithDim(args.kv.head_dim, run);
  }
  RunPlain<PlainElements<E>>(args, context, device);
}

// A cache of records. In files of its own for the device: see cuda_fp8.cu and those beside it.
template <KvQuantization kQuantization, typename Device>
void RunRecordAttention(const PagedAttentionArgs& args, const AttentionContext& context, Device& device) {
  const auto run = [&]<int kDim>(std::integral_constant<int, kDim>) {
    RunTiles<CodeTiles<kQuantization, kDim>, CodeChunkTiles<kQuantization, MmaProducts<BFloat16, kDim>>,
             CodeChunkTiles<kQuantization, WgmmaProducts<BFloat16, kDim>>>(args, context, device);
  };
  if (args.kv.head_dim % CodeTiles<kQuantization, 64>::kDimMultiple == 0) return WithDim(args.kv.head_dim, run);
  RunPlain<PlainRecords<kQuantization>>(args, context, device);
}

template <typename Device>
void PagedAttention(const PagedAttentionArgs& args, const AttentionContext& context, Device& device) {
  Check(args.kv.key_layout == KeyLayout::kRows, "PagedAttention: cuda keeps keys in rows");
  Check(args.kv.head_dim <= 256 && args.q_heads / args.kv.kv_heads <= kMaxGroup, "PagedAttention: heads");
  switch (args.kv.quantization) {
    case KvQuantization::kFp8E4M3:
      return RunRecordAttention<KvQuantization::kFp8E4M3>(args, context, device);
    case KvQuantization::kInt8:
      return RunRecordAttention<KvQuantization::kInt8>(args, context, device);
    case KvQuantization::kInt4:
      return RunRecordAttention<KvQuantization::kInt4>(args, context, device);
    case KvQuantization::kNone:
      return WithElement(args.kv.dtype, [&]<typename E>(E) { RunAttention<E>(args, context, device); });
  }
}

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_CUDA_CUH_
