// The implementation of GatherRows behind `ref` and `cpu`. Included by backends and tests.

#ifndef QUIRE_KERNELS_GATHER_ROWS_IMPL_H_
#define QUIRE_KERNELS_GATHER_ROWS_IMPL_H_

#include "kernels/gather_rows/gather_rows.h"

namespace quire {

void HostGatherRows(const GatherRowsArgs& args);

}  // namespace quire

#endif  // QUIRE_KERNELS_GATHER_ROWS_IMPL_H_
