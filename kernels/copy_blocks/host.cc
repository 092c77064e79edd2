#include <cstring>

#include "kernels/copy_blocks/impl.h"

namespace quire {

void HostCopyBlocks(const CopyBlocksArgs& args) {
  for (int32_t r = 0; r < args.num_regions; ++r) {
    const BlockRegion& region = args.regions[r];
    char* const blocks = static_cast<char*>(region.data);
    for (int32_t c = 0; c < args.num_copies; ++c) {
      const BlockCopy& copy = args.copies[c];
      std::memcpy(blocks + static_cast<size_t>(copy.to) * region.block_bytes,
                  blocks + static_cast<size_t>(copy.from) * region.block_bytes, region.block_bytes);
    }
  }
}

}  // namespace quire
