// GatherRows on CUDA: all pointers are the device's. Device is CudaDevice, or the emulation's in tests.

#ifndef QUIRE_KERNELS_GATHER_ROWS_CUDA_H_
#define QUIRE_KERNELS_GATHER_ROWS_CUDA_H_

#include "kernels/gather_rows/gather_rows.h"

namespace quire::cuda {

template <typename Device>
void GatherRows(const GatherRowsArgs& args, Device& device);

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_GATHER_ROWS_CUDA_H_
