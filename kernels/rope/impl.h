// The implementations of RopeKvWrite behind the backends. Included by backends and tests.

#ifndef QUIRE_KERNELS_ROPE_IMPL_H_
#define QUIRE_KERNELS_ROPE_IMPL_H_

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/rope/rope.h"

namespace quire {

void RefRopeKvWrite(const RopeKvWriteArgs& args);
void CpuRopeKvWrite(const RopeKvWriteArgs& args, const CpuKernels& kernels, ThreadPool& pool);

}  // namespace quire

#endif  // QUIRE_KERNELS_ROPE_IMPL_H_
