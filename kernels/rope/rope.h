// RoPE (Su et al. 2021, RoFormer eq. 34, in the half-split pairing of GPT-NeoX and Llama) and the write of K and V.
//
//   (a, b) = (x[i], x[i + head_dim/2]),  i < head_dim/2:   x[i] = a cos - b sin,  x[i + head_dim/2] = b cos + a sin
//   with cos, sin of angle position * inv_freq[i], read from a table that is computed once, in float32, at load
//
// q is rotated in place; k is rotated, rounded to the cache's dtype and written to its slot; v is rounded and written.
// Example: head_dim 2, position 1, inv_freq [pi/2]: (1, 0) becomes (0, 1).

#ifndef QUIRE_KERNELS_ROPE_ROPE_H_
#define QUIRE_KERNELS_ROPE_ROPE_H_

#include <cstdint>

#include "kernels/paged_attention/paged_kv.h"
#include "kernels/tensor.h"

namespace quire {

struct RopeKvWriteArgs {
  Tensor q;                  // in and out: float32 [num_rows, q_heads * head_dim]
  Tensor k;                  // float32 [num_rows, kv_heads * head_dim], not rotated; unchanged
  Tensor v;                  // float32 [num_rows, kv_heads * head_dim]
  const int32_t* positions;  // [num_rows], each < number of table rows
  const int64_t* slots;      // [num_rows]: block * block_size + slot, each different
  const float* cos;          // [max_positions, head_dim / 2]
  const float* sin;          // [max_positions, head_dim / 2]
  PagedKv kv;
};

}  // namespace quire

#endif  // QUIRE_KERNELS_ROPE_ROPE_H_
