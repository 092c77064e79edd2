// CopyBlocks: copies whole blocks of the KV cache, in all layers: the write of copy-on-write (Kwon 2023, section 4.4).
//
// For every region and copy: the bytes of block `to` become those of block `from`. No block that is written is named in
// another copy of the call, as source or as target. Example: one region of 2 blocks of 3 bytes "abcdef", copy 1 -> 0:
// "defdef".

#ifndef QUIRE_KERNELS_COPY_BLOCKS_COPY_BLOCKS_H_
#define QUIRE_KERNELS_COPY_BLOCKS_COPY_BLOCKS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/paged_attention/paged_kv.h"

namespace quire {

struct BlockCopy {
  BlockId from;
  BlockId to;
};

// Blocks that follow each other in memory, e.g. the K of one layer.
struct BlockRegion {
  void* data;  // num_blocks * block_bytes
  size_t block_bytes;
  int32_t num_blocks;
};

struct CopyBlocksArgs {
  const BlockRegion* regions;  // [num_regions]
  int32_t num_regions;
  const BlockCopy* copies;  // [num_copies]
  int32_t num_copies;
};

}  // namespace quire

#endif  // QUIRE_KERNELS_COPY_BLOCKS_COPY_BLOCKS_H_
