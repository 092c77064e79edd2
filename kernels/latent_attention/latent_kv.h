// LatentKv: the view of one layer's latents in the paged cache of multi-head latent attention (DeepSeek-V2, section
// 2.1), with the one index formula.
//
// A slot (one token) is latent_dim elements, the compressed keys and values after their norm, and rope_dim elements,
// the part of the key that carries the position, rotated. All heads share it: the cache does not know how many there
// are.
//
//   [block][slot][latent_dim + rope_dim]

#ifndef QUIRE_KERNELS_LATENT_ATTENTION_LATENT_KV_H_
#define QUIRE_KERNELS_LATENT_ATTENTION_LATENT_KV_H_

#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/paged_attention/paged_kv.h"

namespace quire {

inline constexpr int32_t kMaxLatentDim = 512;
inline constexpr int32_t kMaxLatentRopeDim = 128;

struct LatentKv {
  void* data = nullptr;  // num_blocks * BlockElements() elements of dtype
  DType dtype = DType::kFloat32;
  int32_t num_blocks = 0;
  int32_t block_size = 0;  // slots of a block: 8 .. 256, a multiple of 8
  int32_t latent_dim = 0;  // kv_lora_rank; even, at most kMaxLatentDim
  int32_t rope_dim = 0;    // qk_rope_head_dim; even, at most kMaxLatentRopeDim

  int32_t dim() const { return latent_dim + rope_dim; }
  int64_t BlockElements() const { return int64_t{block_size} * dim(); }
  int64_t Index(BlockId block, int32_t slot, int32_t dim_index) const {
    return (int64_t{block} * block_size + slot) * dim() + dim_index;
  }
};

}  // namespace quire

#endif  // QUIRE_KERNELS_LATENT_ATTENTION_LATENT_KV_H_
