// Multi-head latent attention in its absorbed form (DeepSeek-V2, section 2.1 and appendix C): the write of the latents
// and the attention over them. The projections that are absorbed, W_uk before and W_uv behind, are HeadLinear's.
//
// With [c | r] = a row of `kv`:  latent = rms_norm(c) * norm_weight,  key part = rope(r). LatentKvWrite rounds both to
// the cache's dtype, writes them to the row's slot, and rotates the rope parts of the queries in place.
//
// LatentAttention, for the row of a sequence at position p and head h:
//
//   s[t] = scale * (q_latent[row, h, :] . latent[t, :] + q_rope[row, h, :] . key part[t, :])     t = 0 .. p
//   out  = sum_t softmax(s)[t] * latent[t, :]
//
// It is the same for prompts and for decodes: one form has one order of summation. Otherwise as paged_attention.h says:
// what is rounded, what decides the order of summation, what must not be read. YaRN's mscale^2 is in `scale`. Heads do
// not know of each other: a caller may take them slice by slice to keep q_latent and out small.
//
// Example: latent_dim 2, rope_dim 2, p = 1, one head, scale 1/2, q_latent = [2, 0], q_rope = [0, 2], latents [[0, 4],
// [ln 3, 0]], key parts [[1, 0], [7, 0]]: s = [0, ln 3], weights [1/4, 3/4], out = [3/4 ln 3, 1].

#ifndef QUIRE_KERNELS_LATENT_ATTENTION_LATENT_ATTENTION_H_
#define QUIRE_KERNELS_LATENT_ATTENTION_LATENT_ATTENTION_H_

#include <cstdint>

#include "kernels/latent_attention/latent_kv.h"
#include "kernels/paged_attention/paged_attention.h"
#include "kernels/rope/rope.h"
#include "kernels/tensor.h"

namespace quire {

// The rope parts of a row's queries: rope_dim elements for each head, `head_stride` apart. A view into the projected
// queries [num_rows, num_heads * (nope_dim + rope_dim)], from column nope_dim on.
struct RopeQueries {
  Tensor q;             // float32 [num_rows, at least (num_heads - 1) * head_stride + rope_dim]
  int64_t head_stride;  // elements, >= rope_dim
};

struct LatentKvWriteArgs {
  RopeQueries q_rope;  // in and out
  int32_t num_heads;
  Tensor kv;                 // float32 [num_rows, latent_dim + rope_dim], neither normed nor rotated; unchanged
  const float* norm_weight;  // [latent_dim]
  float epsilon;             // > 0
  const int32_t* positions;  // [num_rows], each < number of table rows
  const int64_t* slots;      // [num_rows]: block * block_size + slot, each different
  const float* cos;          // [max_positions, rope_dim / 2]
  const float* sin;          // [max_positions, rope_dim / 2]
  RopePairing pairing;       // kHalves or kInterleaved
  LatentKv cache;
};

struct LatentAttentionArgs {
  Tensor q_latent;               // float32 [num_rows, num_heads * latent_dim]: W_uk absorbed, not scaled
  RopeQueries q_rope;            // rotated, not scaled
  const AttentionChunk* chunks;  // [num_chunks]; they cover every row once, in order
  int32_t num_chunks;
  int32_t num_heads;
  float scale;  // > 0
  LatentKv kv;
  Tensor out;  // any dtype [num_rows, num_heads * latent_dim]
};

}  // namespace quire

#endif  // QUIRE_KERNELS_LATENT_ATTENTION_LATENT_ATTENTION_H_
