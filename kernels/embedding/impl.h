// The implementations of Embedding behind the backends. Included by backends and tests.

#ifndef QUIRE_KERNELS_EMBEDDING_IMPL_H_
#define QUIRE_KERNELS_EMBEDDING_IMPL_H_

#include "kernels/cpu/thread_pool.h"
#include "kernels/embedding/embedding.h"

namespace quire {

void RefEmbedding(const EmbeddingArgs& args);
void CpuEmbedding(const EmbeddingArgs& args, ThreadPool& pool);

}  // namespace quire

#endif  // QUIRE_KERNELS_EMBEDDING_IMPL_H_
