// Grouped-query paged attention, causal, over block tables (Vaswani 2017 eq. 1; GQA: Ainslie 2023; paging: Kwon 2023
// §4.1; online softmax: Milakov and Gimelshein 2018).
//
// For the row of a sequence at position p, query head h, group = q_heads / kv_heads, g = h / group:
//
//   s[t]   = scale * sum_d q[row, h, d] * K[t, g, d]          t = 0 .. p
//   out    = sum_t softmax(s)[t] * V[t, g, :]
//
// What some families add:
//
//   window      only t of (p - window, p] are seen (Beltagy 2020, Mistral)
//   ALiBi       s[t] = scale * (q . K[t] + bfloat16(slope[h] * bfloat16(t)))  (Press 2021, as Falcon was trained: in
//               bfloat16, whatever the cache's dtype, and before the scale)
//   soft cap    s[t] := cap * tanh(s[t] / cap)                (Gemma 2)
//   sinks       softmax(s)[t] = e^s[t] / (e^sink[h] + sum_t' e^s[t'])    (gpt-oss; Xiao 2023)
//
// K[t], V[t] are in block block_table[t / block_size], slot t % block_size. q is rounded to the cache's dtype (to
// bfloat16 for a quantised cache) before the dot product; products and sums are float32. An implementation that
// multiplies in bfloat16 may also round the numerators of the softmax to bfloat16 (then in its denominator too, so that
// the weights still sum to one; but of a quantised cache it rounds numerators that the scales of V are multiplied
// into).
//
// The order of summation is a function of p alone: tiles and splits have a fixed size counted from position 0, whatever
// the block size, the number of rows, the company or the workers. So are the bits of a row (ARCHITECTURE laws 4, 5 and
// 7).
//
// Must not be read: slots beyond a row's own position that are not in its sequence's own used blocks, entries of a
// block table beyond the last used one or before the first that a row of the chunk sees (their blocks have gone back to
// the pool), blocks not named. What lies beyond a row's position or before its window must not influence it, be it NaN.
//
// Example: p = 1, one head, head_dim 2, scale 1/2, q = [2, 0], K = [[0, 1], [ln 3, 0]], V = [[4, 0], [0, 8]]: s = [0,
// ln 3], weights [1/4, 3/4], out = [1, 6].

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_H_
#define QUIRE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_H_

#include <cstdint>

#include "kernels/paged_attention/paged_kv.h"
#include "kernels/tensor.h"

namespace quire {

// The consecutive new tokens of one sequence in this call: rows [first_row, first_row + num_rows) are at positions
// first_position, first_position + 1, ... Their own K and V are already in the cache.
struct AttentionChunk {
  // [ceil((first_position + num_rows) / block_size)], more may follow; valid from FirstEntry() of the window on.
  const BlockId* block_table;
  int32_t first_row;
  int32_t num_rows;        // >= 1; where there are graphs also 0: one row of nobody, whose output is undefined
  int32_t first_position;  // 0-based
};

struct PagedAttentionArgs {
  Tensor q;                      // float32 [num_rows, q_heads * head_dim], rotated, not scaled
  const AttentionChunk* chunks;  // [num_chunks]; they cover every row once, in order
  int32_t num_chunks;
  int32_t q_heads;  // a multiple of kv.kv_heads
  float scale;      // > 0, usually 1 / sqrt(head_dim)
  PagedKv kv;
  Tensor out;  // any dtype [num_rows, q_heads * head_dim]

  int32_t window = 0;                   // positions that a row sees, its own included; 0: all
  float softcap = 0;                    // 0: none
  const float* sinks = nullptr;         // [q_heads] logits, or nullptr
  const float* alibi_slopes = nullptr;  // [q_heads], each a bfloat16's value, or nullptr
};

// The first position that a row at `position` sees.
constexpr int32_t FirstVisible(int32_t position, int32_t window) {
  return window > 0 && position >= window ? position - window + 1 : 0;
}

// The first entry of a chunk's block table that may be read.
constexpr int32_t FirstEntry(int32_t first_position, int32_t window, int32_t block_size) {
  return FirstVisible(first_position, window) / block_size;
}

}  // namespace quire

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_H_
