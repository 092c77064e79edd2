#include "kvcache/kv_cache.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "kernels/check.h"

namespace quire {

absl::StatusOr<KvCache> KvCache::Create(const KvCacheSpec& spec, int32_t num_blocks, Backend& backend) {
  Check(num_blocks >= 1, "a KV cache has at least one block");
  const uint64_t bytes = spec.BytesPerBlock() * static_cast<uint64_t>(num_blocks);
  absl::StatusOr<Buffer> buffer = backend.Allocate(bytes);
  if (!buffer.ok()) {
    return absl::Status(buffer.status().code(), absl::StrFormat("KV cache of %d blocks, %d bytes: %s", num_blocks,
                                                                bytes, buffer.status().message()));
  }
  return KvCache(spec, num_blocks, backend.key_layout(), *std::move(buffer));
}

KvCache::KvCache(const KvCacheSpec& spec, int32_t num_blocks, KeyLayout key_layout, Buffer bytes)
    : spec_(spec), num_blocks_(num_blocks), key_layout_(key_layout), bytes_(std::move(bytes)) {
  const int32_t regions_per_layer = spec.is_latent() ? 1 : 2;  // K and V
  const uint64_t block_bytes = spec.BytesPerTokenPerLayer() * spec.block_size / regions_per_layer;
  char* region = static_cast<char*>(bytes_.data());
  for (int32_t i = 0; i < spec.layers_per_group * regions_per_layer; ++i, region += block_bytes * num_blocks) {
    regions_.push_back({.data = region, .block_bytes = block_bytes, .num_blocks = num_blocks});
  }
}

PagedKv KvCache::LayerView(int32_t layer) const {
  Check(!spec_.is_latent(), "the cache keeps latents");
  const BlockRegion* region = &regions_[2 * spec_.PlaceInGroup(layer)];
  return {
      .k = region[0].data,
      .v = region[1].data,
      .dtype = spec_.dtype,
      .num_blocks = num_blocks_,
      .block_size = spec_.block_size,
      .kv_heads = spec_.kv_heads,
      .head_dim = spec_.head_dim,
      .key_layout = key_layout_,
      .quantization = spec_.quantization,
  };
}

LatentKv KvCache::LatentView(int32_t layer) const {
  Check(spec_.is_latent(), "the cache keeps heads");
  return {
      .data = regions_[spec_.PlaceInGroup(layer)].data,
      .dtype = spec_.dtype,
      .num_blocks = num_blocks_,
      .block_size = spec_.block_size,
      .latent_dim = spec_.latent_dim,
      .rope_dim = spec_.rope_dim,
  };
}

}  // namespace quire
