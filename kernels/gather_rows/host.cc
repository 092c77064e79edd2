#include <cstring>

#include "kernels/gather_rows/impl.h"

namespace quire {

void HostGatherRows(const GatherRowsArgs& args) {
  const auto bytes = DTypeBytes(args.x.dtype) * static_cast<size_t>(args.x.cols);
  for (int64_t i = 0; i < args.num_kept; ++i) {
    if (args.rows[i] != i) std::memcpy(args.x.Rows(i, 1).data, args.x.Rows(args.rows[i], 1).data, bytes);
  }
}

}  // namespace quire
