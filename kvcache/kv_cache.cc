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
  return KvCache(spec, num_blocks, *std::move(buffer));
}

char* KvCache::LayerBegin(int32_t layer) const {
  const uint64_t place_bytes =
      spec_.BytesPerTokenPerLayer() * static_cast<uint64_t>(spec_.block_size) * static_cast<uint64_t>(num_blocks_);
  return static_cast<char*>(bytes_.data()) + static_cast<uint64_t>(spec_.PlaceInGroup(layer)) * place_bytes;
}

PagedKv KvCache::LayerView(int32_t layer) const {
  Check(!spec_.is_latent(), "the cache keeps latents");
  PagedKv view{
      .k = LayerBegin(layer),
      .dtype = spec_.dtype,
      .num_blocks = num_blocks_,
      .block_size = spec_.block_size,
      .kv_heads = spec_.kv_heads,
      .head_dim = spec_.head_dim,
  };
  const uint64_t k_bytes =
      static_cast<uint64_t>(view.BlockElements()) * static_cast<uint64_t>(num_blocks_) * DTypeBytes(spec_.dtype);
  view.v = static_cast<char*>(view.k) + k_bytes;
  return view;
}

}  // namespace quire
