// Embedding: x[r, :] = table[ids[r], :].
//
// Example: table = [[1, 2], [3, 4]], ids = [1, 0, 1] gives x = [[3, 4], [1, 2], [3, 4]].

#ifndef QUIRE_KERNELS_EMBEDDING_EMBEDDING_H_
#define QUIRE_KERNELS_EMBEDDING_EMBEDDING_H_

#include <cstdint>

#include "kernels/linear/linear.h"
#include "kernels/tensor.h"

namespace quire {

struct EmbeddingArgs {
  const uint32_t* ids;        // [x.rows], each < table->n
  const LinearWeight* table;  // [n = vocab_size, k = hidden]: a packed weight, so that tied embeddings are stored once
  Tensor x;                   // out: float32 [num_rows, hidden]
};

}  // namespace quire

#endif  // QUIRE_KERNELS_EMBEDDING_EMBEDDING_H_
