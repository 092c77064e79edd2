// Grouped-query paged attention, causal, over block tables (Vaswani 2017 eq. 1; GQA: Ainslie 2023; paging: Kwon 2023 §4.1;
// online softmax: Milakov and Gimelshein 2018).
//
// For the row of a sequence at position p, query head h, group = q_heads / kv_heads, g = h / group:
//
//   s[t]   = scale * sum_d q[row, h, d] * K[t, g, d]          t = 0 .. p
//   out    = sum_t softmax(s)[t] * V[t, g, :]
//
// K[t], V[t] are in block block_table[t / block_size], slot t % block_size. q is rounded to the cache's dtype before the dot
// product, so are the softmax weights before they meet V; sums are float32. The order of summation is a function of p alone: tiles and splits have
// a fixed size counted from position 0, whatever the block size, the number of rows, the company or the workers.
//
// Must not be read: slots beyond a row's own position, entries of a block table beyond the last used one, blocks not named.
// Example: one sequence, p = 1, one head of one dim... see tests/kernels/paged_attention_test.cc for worked numbers.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_H_
#define QUIRE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_H_

#include <cstdint>

#include "kernels/paged_attention/paged_kv.h"
#include "kernels/tensor.h"

namespace quire {

// The consecutive new tokens of one sequence in this call: rows [first_row, first_row + num_rows) are at positions
// first_position, first_position + 1, ... Their own K and V are already in the cache.
struct AttentionChunk {
  const BlockId* block_table;  // [ceil((first_position + num_rows) / block_size)] are valid, more may follow
  int32_t first_row;
  int32_t num_rows;        // >= 1
  int32_t first_position;  // 0-based
};

struct PagedAttentionArgs {
  Tensor q;                      // float32 [num_rows, q_heads * head_dim], rotated, not scaled
  const AttentionChunk* chunks;  // [num_chunks]; they cover every row once, in order
  int32_t num_chunks;
  int32_t q_heads;  // a multiple of kv.kv_heads
  float scale;      // usually 1 / sqrt(head_dim)
  PagedKv kv;
  Tensor out;  // any dtype [num_rows, q_heads * head_dim]
};

}  // namespace quire

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_H_
