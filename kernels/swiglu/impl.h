// The implementations of SwiGlu behind the backends. Included by backends and tests.

#ifndef QUIRE_KERNELS_SWIGLU_IMPL_H_
#define QUIRE_KERNELS_SWIGLU_IMPL_H_

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/swiglu/swiglu.h"

namespace quire {

void RefSwiGlu(const SwiGluArgs& args);
void CpuSwiGlu(const SwiGluArgs& args, const CpuKernels& kernels, ThreadPool& pool);

}  // namespace quire

#endif  // QUIRE_KERNELS_SWIGLU_IMPL_H_
