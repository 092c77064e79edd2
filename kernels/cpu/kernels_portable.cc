#include "kernels/cpu/vector_portable.h"
// The vector comes first: the kernels are written in terms of it.
#include "kernels/cpu/table.h"

namespace quire {

const CpuKernels& PortableKernels() { return kTable<BFloat16Weight>; }

}  // namespace quire
