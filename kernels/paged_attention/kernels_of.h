// The kernels of tile.h for an instruction set.

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_KERNELS_OF_H_
#define QUIRE_KERNELS_PAGED_ATTENTION_KERNELS_OF_H_

#include "kernels/cpu/isa.h"
#include "kernels/paged_attention/tile.h"

namespace quire::attention {

// By element type: the index is a DType's value. REQUIRES: `isa` is one of SupportedCpuIsas().
inline const AttentionKernels* KernelsOf(CpuIsa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case CpuIsa::kAvx512Bf16:
      return Avx512Bf16Attention();
    case CpuIsa::kAvx512:
      return Avx512Attention();
    case CpuIsa::kAvx2:
      return Avx2Attention();
#endif
    default:
      return PortableAttention();
  }
}

}  // namespace quire::attention

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_KERNELS_OF_H_
