// The implementations of Activation behind the backends. Included by backends and tests.

#ifndef QUIRE_KERNELS_ACTIVATION_IMPL_H_
#define QUIRE_KERNELS_ACTIVATION_IMPL_H_

#include "kernels/activation/activation.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/thread_pool.h"

namespace quire {

void RefActivation(const ActivationArgs& args);
void CpuActivation(const ActivationArgs& args, const CpuKernels& kernels, ThreadPool& pool);

}  // namespace quire

#endif  // QUIRE_KERNELS_ACTIVATION_IMPL_H_
