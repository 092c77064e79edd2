#include <cstring>

#include "kernels/scrub_blocks/impl.h"

namespace quire {

void HostScrubBlocks(const ScrubBlocksArgs& args) {
  for (int32_t r = 0; r < args.num_regions; ++r) {
    const BlockRegion& region = args.regions[r];
    char* const blocks = static_cast<char*>(region.data);
    for (int32_t b = 0; b < args.num_blocks; ++b) {
      std::memset(blocks + static_cast<size_t>(args.blocks[b]) * region.block_bytes, 0, region.block_bytes);
    }
  }
}

}  // namespace quire
