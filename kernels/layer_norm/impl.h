// The implementations of LayerNorm behind the backends. Included by backends and tests.

#ifndef QUIRE_KERNELS_LAYER_NORM_IMPL_H_
#define QUIRE_KERNELS_LAYER_NORM_IMPL_H_

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/layer_norm/layer_norm.h"

namespace quire {

void RefLayerNorm(const LayerNormArgs& args);
void CpuLayerNorm(const LayerNormArgs& args, const CpuKernels& kernels, ThreadPool& pool);

}  // namespace quire

#endif  // QUIRE_KERNELS_LAYER_NORM_IMPL_H_
