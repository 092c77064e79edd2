// From a BlockFormat at run time to its traits at compile time. For plain code: not for files of an instruction set.

#ifndef QUIRE_KERNELS_LINEAR_BLOCK_VISIT_H_
#define QUIRE_KERNELS_LINEAR_BLOCK_VISIT_H_

#include <cstdint>

#include "kernels/check.h"
#include "kernels/dtype.h"
#include "kernels/linear/block_format.h"

namespace quire {

// visitor(BlockTraits<blocks>()). REQUIRES: blocks != kNone.
template <class Visitor>
auto VisitBlocks(BlockFormat blocks, Visitor visitor) {
  switch (blocks) {
    case BlockFormat::kNone:
      break;
    case BlockFormat::kQ8_0:
      return visitor(BlockTraits<BlockFormat::kQ8_0>());
    case BlockFormat::kQ4_0:
      return visitor(BlockTraits<BlockFormat::kQ4_0>());
    case BlockFormat::kQ4_1:
      return visitor(BlockTraits<BlockFormat::kQ4_1>());
    case BlockFormat::kQ5_0:
      return visitor(BlockTraits<BlockFormat::kQ5_0>());
    case BlockFormat::kQ5_1:
      return visitor(BlockTraits<BlockFormat::kQ5_1>());
    case BlockFormat::kQ2_K:
      return visitor(BlockTraits<BlockFormat::kQ2_K>());
    case BlockFormat::kQ3_K:
      return visitor(BlockTraits<BlockFormat::kQ3_K>());
    case BlockFormat::kQ4_K:
      return visitor(BlockTraits<BlockFormat::kQ4_K>());
    case BlockFormat::kQ5_K:
      return visitor(BlockTraits<BlockFormat::kQ5_K>());
    case BlockFormat::kQ6_K:
      return visitor(BlockTraits<BlockFormat::kQ6_K>());
    case BlockFormat::kMxfp4:
      break;
  }
  Check(blocks == BlockFormat::kMxfp4, "a quantised format is needed");
  return visitor(BlockTraits<BlockFormat::kMxfp4>());
}

// d or dmin of a super-block.
template <class Traits>
float HalfOf(uint16_t bits) {
  return Traits::kIsTable ? ToFloat(BFloat16{bits}) : ToFloat(Float16{bits});
}

template <class Traits>
int ValueOf(uint8_t code) {
  if constexpr (Traits::kIsTable) return kMxfp4Values[code];
  return code;
}

}  // namespace quire

#endif  // QUIRE_KERNELS_LINEAR_BLOCK_VISIT_H_
