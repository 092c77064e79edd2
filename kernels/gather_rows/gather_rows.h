// GatherRows: keeps some rows of a matrix, in place: row i becomes what row rows[i] was.
//
// What lies behind the kept rows is undefined afterwards. Example: x = [[1], [2], [3]], rows = [0, 2]: the first two
// rows are [1], [3].

#ifndef QUIRE_KERNELS_GATHER_ROWS_GATHER_ROWS_H_
#define QUIRE_KERNELS_GATHER_ROWS_GATHER_ROWS_H_

#include <cstdint>

#include "kernels/tensor.h"

namespace quire {

struct GatherRowsArgs {
  Tensor x;             // any dtype [num_rows, cols]
  const int32_t* rows;  // [num_kept], strictly increasing, each < num_rows
  int64_t num_kept;
};

}  // namespace quire

#endif  // QUIRE_KERNELS_GATHER_ROWS_GATHER_ROWS_H_
