// KvCacheSpec: the shape of the KV cache and the only place with its formula.
//
//   bytes per token = 2 (K and V) * layers * kv_heads * head_dim * bytes per element
//
// Sized by kv_heads, never by q_heads: that is the point of grouped-query attention (Ainslie 2023). Whatever prints,
// plans or allocates cache memory asks here. Example: Llama-3-8B in bfloat16, 32 layers, 8 KV heads of 128: 2 * 32 * 8
// * 128 * 2 = 131,072 bytes per token.

#ifndef QUIRE_KVCACHE_KV_CACHE_SPEC_H_
#define QUIRE_KVCACHE_KV_CACHE_SPEC_H_

#include <cstdint>

#include "kernels/dtype.h"

namespace quire {

struct KvCacheSpec {
  int32_t num_layers = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t block_size = 16;  // tokens (slots) per block
  DType dtype = DType::kBFloat16;

  // Bytes of one token in one layer, K and V.
  uint64_t BytesPerTokenPerLayer() const { return 2 * uint64_t(kv_heads) * uint64_t(head_dim) * DTypeBytes(dtype); }
  // Bytes of one token in all layers.
  uint64_t BytesPerToken() const { return uint64_t(num_layers) * BytesPerTokenPerLayer(); }
  // Bytes of one block in all layers.
  uint64_t BytesPerBlock() const { return BytesPerToken() * uint64_t(block_size); }
  // Whole blocks that `bytes` of memory hold.
  uint64_t BlocksIn(uint64_t bytes) const { return bytes / BytesPerBlock(); }
  // Blocks that a sequence of `num_tokens` tokens needs.
  int64_t BlocksFor(int64_t num_tokens) const { return (num_tokens + block_size - 1) / block_size; }
};

}  // namespace quire

#endif  // QUIRE_KVCACHE_KV_CACHE_SPEC_H_
