// The implementations of GatedActivation behind the backends. Included by backends and tests.

#ifndef QUIRE_KERNELS_GATED_ACTIVATION_IMPL_H_
#define QUIRE_KERNELS_GATED_ACTIVATION_IMPL_H_

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/gated_activation/gated_activation.h"

namespace quire {

void RefGatedActivation(const GatedActivationArgs& args);
void CpuGatedActivation(const GatedActivationArgs& args, const CpuKernels& kernels, ThreadPool& pool);

}  // namespace quire

#endif  // QUIRE_KERNELS_GATED_ACTIVATION_IMPL_H_
