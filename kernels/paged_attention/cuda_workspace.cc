// Sizes of what PagedAttention on CUDA keeps between its kernels: plain C++, the same for a device and its emulation.

#include <algorithm>

#include "kernels/paged_attention/cuda.h"
#include "kernels/paged_attention/cuda_decode.cuh"
#include "kernels/paged_attention/cuda_prefill.cuh"
#include "kernels/paged_attention/cuda_prefill_mma.cuh"
#include "kernels/paged_attention/cuda_prefill_wgmma.cuh"

namespace quire::cuda {
namespace {

constexpr int32_t kWaves = 4;  // as the planner splits where rows abound (cuda_plan.cuh)

int64_t MaxDecodeItems(const WorkspaceShape& shape, int32_t num_sms) {
  // The planner gives each row its first split and, beyond, at most kWaves times the items that fill the device.
  const int64_t max_items = CeilDiv<int64_t>(int64_t{num_sms} * kMaxDecodeCtasPerSm, shape.kv_heads);
  return shape.max_sequences + kWaves * max_items + 1;
}

int64_t MaxPrefillItems(const WorkspaceShape& shape) {
  const int64_t group = std::max(1, shape.q_heads / shape.kv_heads);
  const int64_t rows_per_tile = std::max<int64_t>(1, std::min(PrefillRows(false), PrefillRows(true)) / group);
  return shape.max_sequences + shape.max_rows / rows_per_tile + 1;
}

// Lays arrays out one after another; from a null base it only counts.
class Layout {
 public:
  explicit Layout(void* base) : base_(static_cast<char*>(base)) {}
  template <typename T>
  T* Next(int64_t count) {
    char* at = base_ == nullptr ? nullptr : base_ + bytes_;
    bytes_ += RoundUp<size_t>(static_cast<size_t>(count) * sizeof(T), 256);
    return reinterpret_cast<T*>(at);
  }
  size_t bytes() const { return bytes_; }

 private:
  char* base_;
  size_t bytes_ = 0;
};

size_t Place(const WorkspaceShape& shape, int32_t num_sms, void* base, AttentionPlan& plan) {
  const int64_t items = MaxDecodeItems(shape, num_sms);
  Layout layout(base);
  plan.counters = layout.Next<AttentionCounters>(1);
  plan.decode_items = layout.Next<DecodeItem>(items);
  plan.prefill_items = layout.Next<PrefillItem>(MaxPrefillItems(shape));
  plan.num_arrived = layout.Next<int32_t>(items * shape.q_heads);
  plan.partial_out = layout.Next<float>(items * shape.q_heads * shape.head_dim);
  plan.partial_max = layout.Next<float>(items * shape.q_heads);
  plan.partial_sum = layout.Next<float>(items * shape.q_heads);
  return layout.bytes();
}

// Of a cache of two bytes an element, which takes more than one of codes; the code's prefill has its tile beside.
template <template <typename, int> typename Products, int kDim>
constexpr int PrefillSharedBytes() {
  using P = Products<BFloat16, kDim>;
  return Max(PrefillKernel<ElementChunkTiles<P>>::kSharedBytes,
             PrefillKernel<CodeChunkTiles<KvQuantization::kInt8, P>>::kSharedBytes);
}

template <int kDim>
size_t SharedBytes(int32_t group, bool prefills_by_wgmma) {
  using Tiles = ElementTiles<BFloat16, kDim>;
  constexpr int kWidest = kDim == 256 ? 2 : 4;
  const int decode = group <= 8 ? DecodeKernel<Tiles, 1>::kSharedBytes : DecodeKernel<Tiles, kWidest>::kSharedBytes;
  const int prefill =
      prefills_by_wgmma ? PrefillSharedBytes<WgmmaProducts, kDim>() : PrefillSharedBytes<MmaProducts, kDim>();
  return static_cast<size_t>(Max(decode, prefill));
}

}  // namespace

size_t AttentionSharedBytes(int32_t head_dim, int32_t group, bool prefills_by_wgmma) {
  if (head_dim <= 64) return SharedBytes<64>(group, prefills_by_wgmma);
  return head_dim <= 128 ? SharedBytes<128>(group, prefills_by_wgmma) : SharedBytes<256>(group, prefills_by_wgmma);
}

size_t AttentionWorkspaceBytes(const WorkspaceShape& shape, int32_t num_sms) {
  AttentionPlan unused;
  return Place(shape, num_sms, nullptr, unused);
}

AttentionPlan PlaceAttentionPlan(const WorkspaceShape& shape, int32_t num_sms, void* workspace) {
  AttentionPlan plan;
  Place(shape, num_sms, workspace, plan);
  return plan;
}

int32_t NumPrefillItems(const AttentionChunk* chunks, int32_t num_chunks, int32_t rows_per_tile, bool deterministic) {
  int32_t items = 0;
  for (int32_t c = 0; c < num_chunks; ++c) {
    if (chunks[c].num_rows > 1 || deterministic) items += CeilDiv(chunks[c].num_rows, rows_per_tile);
  }
  return items;
}

}  // namespace quire::cuda
