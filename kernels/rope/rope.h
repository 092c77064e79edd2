// RoPE (Su et al. 2021, RoFormer eq. 34) and the write of K and V.
//
// The first rotary_dim elements of a head are turned in pairs (a, b), i < rotary_dim / 2, the others stay as they are:
//
//   kHalves         (a, b) = (x[i], x[i + rotary_dim / 2])     GPT-NeoX, Llama, Qwen, Phi-3, ...
//   kInterleaved    (a, b) = (x[2 i], x[2 i + 1])              RoFormer, GPT-J, DeepSeek
//   kNone           nothing is turned (ALiBi, learned positions)
//
//   (a, b) := (a cos - b sin, b cos + a sin),  cos and sin of angle position * inv_freq[i], from tables that are
//   computed once, in float32, at load; a factor on both (YaRN, longrope) is in the tables
//
// q is rotated in place; k is rotated, rounded to the cache's dtype and written to its slot; v is rounded and written.
// A quantised cache gets the records of both (kernels/paged_attention/kv_record.h).
// Example: head_dim 2, position 1, inv_freq [pi/2]: (1, 0) becomes (0, 1).

#ifndef QUIRE_KERNELS_ROPE_ROPE_H_
#define QUIRE_KERNELS_ROPE_ROPE_H_

#include <cstdint>

#include "kernels/paged_attention/paged_kv.h"
#include "kernels/tensor.h"

namespace quire {

enum class RopePairing : uint8_t { kHalves, kInterleaved, kNone };

// Of a row that has no place in the cache (it fills up a batch of fixed size): nothing of it is turned or written.
inline constexpr int64_t kNoSlot = -1;

struct RopeKvWriteArgs {
  Tensor q;                  // in and out: float32 [num_rows, q_heads * head_dim]
  Tensor k;                  // float32 [num_rows, kv_heads * head_dim], not rotated; unchanged
  Tensor v;                  // float32 [num_rows, kv_heads * head_dim]
  const int32_t* positions;  // [num_rows], each < number of table rows; unused with kNone
  const int64_t* slots;      // [num_rows]: block * block_size + slot, each different; or kNoSlot
  const float* cos;          // [max_positions, rotary_dim / 2]; unused with kNone
  const float* sin;          // [max_positions, rotary_dim / 2]; unused with kNone
  PagedKv kv;
  RopePairing pairing = RopePairing::kHalves;
  int32_t rotary_dim = 0;  // even, at most head_dim; 0: head_dim
};

inline int32_t RotaryDim(const RopeKvWriteArgs& args) {
  return args.rotary_dim > 0 ? args.rotary_dim : args.kv.head_dim;
}

}  // namespace quire

#endif  // QUIRE_KERNELS_ROPE_ROPE_H_
