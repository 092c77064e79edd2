// The implementation of ScrubBlocks behind `ref` and `cpu`. Included by backends and tests.

#ifndef QUIRE_KERNELS_SCRUB_BLOCKS_IMPL_H_
#define QUIRE_KERNELS_SCRUB_BLOCKS_IMPL_H_

#include "kernels/scrub_blocks/scrub_blocks.h"

namespace quire {

void HostScrubBlocks(const ScrubBlocksArgs& args);

}  // namespace quire

#endif  // QUIRE_KERNELS_SCRUB_BLOCKS_IMPL_H_
