// PagedKv: the view of one layer's keys and values in the paged cache, with the one index formula.
//
// The cache is num_blocks blocks; a block has block_size slots (one slot: one token); a slot has kv_heads heads of
// head_dim elements, once for K and once for V. Sized by kv_heads, never by q_heads. Logical index of an element:
//
//   [block][kv_head][slot][dim]
//
// V is stored in that order. K is stored as the backend likes it, for every dtype:
//
//   KeyLayout::kRows:      in that order too, so that a slot's key is one run of memory, as tensor cores load it
//   KeyLayout::kDimPairs:  so that the slots of a block are the SIMD lanes: dims in pairs, the pair innermost; a dot
//                          product over dims runs down whole vectors of slots and needs no horizontal sum
//
//   kDimPairs: [block][kv_head][head_dim / 2][block_size][2]       offset (dim / 2 * block_size + slot) * 2 + dim % 2
//
// Quantised, K and V are both [block][kv_head][slot] of records: the codes of head_dim elements and their scale, as
// kv_record.h says.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_PAGED_KV_H_
#define QUIRE_KERNELS_PAGED_ATTENTION_PAGED_KV_H_

#include <cstdint>
#include <string_view>

#include "kernels/dtype.h"

namespace quire {

// A block of the KV cache by number, 0 .. num_blocks - 1. An id is not bytes.
using BlockId = int32_t;

// The entry of a block table whose block a sliding window has passed. It is never read.
inline constexpr BlockId kNoBlock = -1;

enum class KeyLayout : uint8_t { kDimPairs, kRows };

enum class KvQuantization : uint8_t { kNone, kFp8E4M3, kInt8, kInt4 };

// The name that flags and metrics use for what a cache keeps.
constexpr std::string_view KvTypeName(DType dtype, KvQuantization quantization) {
  switch (quantization) {
    case KvQuantization::kNone:
      return DTypeName(dtype);
    case KvQuantization::kFp8E4M3:
      return "fp8_e4m3";
    case KvQuantization::kInt8:
      return "int8";
    case KvQuantization::kInt4:
      return "int4";
  }
  return "";
}

// Bytes of K, or of V, of one token and head, head_dim being even: elements, or a record of codes and a bfloat16 scale.
constexpr int64_t KvHeadBytes(DType dtype, KvQuantization quantization, int32_t head_dim) {
  constexpr int64_t kScaleBytes = 2;
  if (quantization == KvQuantization::kNone) return head_dim * static_cast<int64_t>(DTypeBytes(dtype));
  return (quantization == KvQuantization::kInt4 ? head_dim / 2 : head_dim) + kScaleBytes;
}

struct PagedKv {
  void* k = nullptr;              // num_blocks * BlockElements() elements of dtype
  void* v = nullptr;              // the same
  DType dtype = DType::kFloat32;  // quantised: kBFloat16, what a query is rounded to
  int32_t num_blocks = 0;
  int32_t block_size = 0;  // slots of a block: 8 .. 256, a multiple of 8
  int32_t kv_heads = 0;
  int32_t head_dim = 0;  // even; at most 256 on `cpu` and `cuda`
  KeyLayout key_layout = KeyLayout::kDimPairs;
  KvQuantization quantization = KvQuantization::kNone;

  constexpr bool quantized() const { return quantization != KvQuantization::kNone; }
  // Of quantised caches: bytes of a record, and where one begins, the same for K and V.
  constexpr int64_t RecordBytes() const { return KvHeadBytes(dtype, quantization, head_dim); }
  constexpr int64_t RecordBegin(BlockId block, int32_t kv_head, int32_t slot) const {
    return ((int64_t{block} * kv_heads + kv_head) * block_size + slot) * RecordBytes();
  }

  // The rest is of caches that are not quantised. Elements of K (or of V) of one block of one layer.
  constexpr int64_t BlockElements() const { return int64_t{kv_heads} * block_size * head_dim; }

  // Index of the first element of (block, kv_head), the same for K and V.
  constexpr int64_t HeadBegin(BlockId block, int32_t kv_head) const {
    return (int64_t{block} * kv_heads + kv_head) * block_size * head_dim;
  }
  constexpr int64_t KIndex(BlockId block, int32_t kv_head, int32_t slot, int32_t dim) const {
    if (key_layout == KeyLayout::kRows) return VIndex(block, kv_head, slot, dim);
    return HeadBegin(block, kv_head) + (int64_t{dim / 2} * block_size + slot) * 2 + dim % 2;
  }
  constexpr int64_t VIndex(BlockId block, int32_t kv_head, int32_t slot, int32_t dim) const {
    return HeadBegin(block, kv_head) + int64_t{slot} * head_dim + dim;
  }
};

}  // namespace quire

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_PAGED_KV_H_
