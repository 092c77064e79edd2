// ScrubBlocks: overwrites whole blocks of the KV cache with zeros, in all layers: those of a sequence whose numbers
// went wrong. A kernel reads no slot that its sequence does not own, so this is the second lock on the same door.
//
// For every region: the bytes of every block of `blocks` become 0. Example: one region of 2 blocks of 3 bytes "abcdef",
// block 1: "abc\0\0\0".

#ifndef QUIRE_KERNELS_SCRUB_BLOCKS_SCRUB_BLOCKS_H_
#define QUIRE_KERNELS_SCRUB_BLOCKS_SCRUB_BLOCKS_H_

#include <cstdint>

#include "kernels/copy_blocks/copy_blocks.h"

namespace quire {

struct ScrubBlocksArgs {
  const BlockRegion* regions;  // [num_regions]
  int32_t num_regions;
  const BlockId* blocks;  // [num_blocks]
  int32_t num_blocks;
};

}  // namespace quire

#endif  // QUIRE_KERNELS_SCRUB_BLOCKS_SCRUB_BLOCKS_H_
