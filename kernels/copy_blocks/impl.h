// The implementation of CopyBlocks behind `ref` and `cpu`. Included by backends and tests.

#ifndef QUIRE_KERNELS_COPY_BLOCKS_IMPL_H_
#define QUIRE_KERNELS_COPY_BLOCKS_IMPL_H_

#include "kernels/copy_blocks/copy_blocks.h"

namespace quire {

void HostCopyBlocks(const CopyBlocksArgs& args);

}  // namespace quire

#endif  // QUIRE_KERNELS_COPY_BLOCKS_IMPL_H_
