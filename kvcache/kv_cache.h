// KvCache: the bytes of the paged KV cache, all layers. It never sees policy.
//
// One allocation at start: for each place in a group, K of all blocks, then V of all blocks. The layers that have the
// same place in different groups share these bytes block by block: a block belongs to one group at a time.
//
// Thread: the engine thread, below ModelRunner.

#ifndef QUIRE_KVCACHE_KV_CACHE_H_
#define QUIRE_KVCACHE_KV_CACHE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/copy_blocks/copy_blocks.h"
#include "kernels/latent_attention/latent_kv.h"
#include "kernels/paged_attention/paged_kv.h"
#include "kernels/tensor.h"
#include "kvcache/kv_cache_spec.h"

namespace quire {

class KvCache {
 public:
  // RESOURCE_EXHAUSTED when the device has not enough memory. REQUIRES: num_blocks >= 1.
  static absl::StatusOr<KvCache> Create(const KvCacheSpec& spec, int32_t num_blocks, Backend& backend);

  const KvCacheSpec& spec() const { return spec_; }
  int32_t num_blocks() const { return num_blocks_; }

  // REQUIRES: 0 <= layer < spec().NumLayers(), heads, no latents.
  PagedKv LayerView(int32_t layer) const;
  // REQUIRES: 0 <= layer < spec().NumLayers(), latents.
  LatentKv LatentView(int32_t layer) const;
  // All bytes, as regions of whole blocks: what copying a block has to copy.
  absl::Span<const BlockRegion> regions() const { return regions_; }

 private:
  KvCache(const KvCacheSpec& spec, int32_t num_blocks, KeyLayout key_layout, Buffer bytes);

  KvCacheSpec spec_;
  int32_t num_blocks_;
  KeyLayout key_layout_;
  std::vector<BlockRegion> regions_;
  Buffer bytes_;  // num_blocks * spec.BytesPerBlock(): [place in the group][K, V][block]
};

}  // namespace quire

#endif  // QUIRE_KVCACHE_KV_CACHE_H_
