// The implementations of RmsNorm behind the backends. Included by backends and tests.

#ifndef QUIRE_KERNELS_RMS_NORM_IMPL_H_
#define QUIRE_KERNELS_RMS_NORM_IMPL_H_

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/rms_norm/rms_norm.h"

namespace quire {

void RefRmsNorm(const RmsNormArgs& args);
void CpuRmsNorm(const RmsNormArgs& args, const CpuKernels& kernels, ThreadPool& pool);

}  // namespace quire

#endif  // QUIRE_KERNELS_RMS_NORM_IMPL_H_
