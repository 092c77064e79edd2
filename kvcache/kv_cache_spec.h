// KvCacheSpec: the shape of the KV cache and the only place with its formula.
//
//   bytes per token = layers * elements per token and layer * bytes per element
//   elements        = 2 (K and V) * kv_heads * head_dim            grouped-query attention, full or windowed
//                   = latent_dim + rope_dim                        multi-head latent attention (DeepSeek-V2,
//                   section 2.1)
//
// A quantised cache keeps a bfloat16 scale beside the codes of each head: head_dim elements are head_dim + 2 bytes of 8
// bits, head_dim / 2 + 2 of 4 (KvHeadBytes). Llama-3-8B in int8: 2 * 32 * 8 * 130 = 66,560 bytes per token.
//
// Sized by kv_heads, never by q_heads: that is the point of grouped-query attention (Ainslie 2023). Whatever prints,
// plans or allocates cache memory asks here. Examples, two bytes each: Llama-3-8B, 32 layers, 8 KV heads of 128: 2 * 32
// * 8 * 128 * 2 = 131,072 bytes per token; DeepSeek-V3, 61 layers, 512 + 64: 70,272.
//
// Layers that keep the same positions form groups, and a sequence has one block table for each group, over one pool of
// blocks. All groups have the same number of layers, the last of a kind filled up with padding, so that a block has the
// same bytes in every group and any id serves any group. A model of one kind is one group of all its layers.

#ifndef QUIRE_KVCACHE_KV_CACHE_SPEC_H_
#define QUIRE_KVCACHE_KV_CACHE_SPEC_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/dtype.h"
#include "kernels/paged_attention/paged_kv.h"

namespace quire {

// Which positions the layers of a group keep, and what of them.
enum class KvKind : uint8_t {
  kFull,    // K and V of all
  kWindow,  // K and V of those that a sliding window still sees
  kLatent,  // the latent and the rotated key part of all
};

struct KvGroup {
  KvKind kind = KvKind::kFull;
  int32_t window = 0;           // kWindow: tokens that a row sees, itself included; else 0
  std::vector<int32_t> layers;  // 1 .. layers_per_group of them, ascending
};

// What every layer keeps of a token: heads or a latent.
struct KvShape {
  int32_t kv_heads = 0, head_dim = 0;
  int32_t latent_dim = 0, rope_dim = 0;                 // multi-head latent attention; then the two above are 0
  int32_t block_size = 16;                              // tokens (slots) per block
  DType dtype = DType::kBFloat16;                       // quantised: this, what a query is rounded to
  KvQuantization quantization = KvQuantization::kNone;  // of heads alone

  bool is_latent() const { return latent_dim > 0; }
  // Elements of one token in one layer.
  uint64_t Elements() const {
    return is_latent() ? uint64_t(latent_dim) + uint64_t(rope_dim) : 2 * uint64_t(kv_heads) * uint64_t(head_dim);
  }
  // Bytes of K, or of V, of one token and head.
  uint64_t HeadBytes() const { return uint64_t(KvHeadBytes(dtype, quantization, head_dim)); }
};

struct KvCacheSpec : KvShape {
  std::vector<KvGroup> groups;
  int32_t layers_per_group = 0;  // padding included

  // Layers of the model.
  int32_t NumLayers() const;
  // The group of a layer, and the layer's place in it. REQUIRES: 0 <= layer < NumLayers().
  int32_t GroupOf(int32_t layer) const;
  int32_t PlaceInGroup(int32_t layer) const;
  // Of each group: its window, 0 if it keeps all positions.
  std::vector<int32_t> Windows() const;

  // Bytes of one token in one layer.
  uint64_t BytesPerTokenPerLayer() const {
    return is_latent() ? Elements() * DTypeBytes(dtype) : 2 * uint64_t(kv_heads) * HeadBytes();
  }
  // Bytes of one token in all layers.
  uint64_t BytesPerToken() const { return uint64_t(NumLayers()) * BytesPerTokenPerLayer(); }
  // Bytes of what the layers can still see of a sequence of `num_tokens` tokens: BytesPerToken of each, but of windowed
  // layers only their window.
  uint64_t BytesPerSequence(int64_t num_tokens) const;
  // Bytes of one block: `layers_per_group` layers.
  uint64_t BytesPerBlock() const { return uint64_t(layers_per_group) * BytesPerTokenPerLayer() * uint64_t(block_size); }
  // Whole blocks that `bytes` of memory hold.
  uint64_t BlocksIn(uint64_t bytes) const { return bytes / BytesPerBlock(); }
  // Blocks, over all groups, that a sequence of `num_tokens` tokens needs to get there: see KvTableLayout.
  int64_t BlocksFor(int64_t num_tokens) const;
  // The longest sequence, up to `max_tokens`, that `num_blocks` blocks hold.
  int64_t TokensIn(int64_t num_blocks, int64_t max_tokens) const;
};

// Partitions the layers into groups: windows[l] is how many tokens a row of layer l sees, itself included, or 0 for
// all. A group has layers of one window. The groups are as few as can be with little padding: no kind of layer gets
// more than an eighth of its layers as padding, if there is a way. REQUIRES: at least one layer, no window below 0;
// a latent shape has no windows.
//
// Example: Gemma 3 4B, 29 layers with a window and 5 without: 7 groups of 5 layers, one of them of the full layers, one
// place of 35 being padding.
KvCacheSpec MakeKvCacheSpec(const KvShape& shape, absl::Span<const int32_t> windows);

// `num_layers` layers of one kind: one group.
KvCacheSpec MakeKvCacheSpec(const KvShape& shape, int32_t num_layers);

}  // namespace quire

#endif  // QUIRE_KVCACHE_KV_CACHE_SPEC_H_
