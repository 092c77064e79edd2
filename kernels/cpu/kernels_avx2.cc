#include "kernels/cpu/vector_avx2.h"
// The vector comes first: the kernels are written in terms of it.
#include "kernels/cpu/table.h"

namespace quire {

const CpuKernels& Avx2Kernels() { return kTable<BFloat16Weight>; }

}  // namespace quire
