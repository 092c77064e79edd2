// Embedding: x[r, :] = scale * table[ids[r], :], or x[r, :] += scale * table[ids[r], :].
//
// `scale` is for the families that scale their embeddings (Gemma, by the root of the hidden size, rounded to the
// model's type); `accumulate` adds learned positions (GPT-2, OPT): a second call whose ids are the positions. Example:
// table = [[1, 2], [3, 4]], ids = [1, 0, 1] gives x = [[3, 4], [1, 2], [3, 4]].

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
  float scale = 1;
  bool accumulate = false;  // x += instead of x =
};

}  // namespace quire

#endif  // QUIRE_KERNELS_EMBEDDING_EMBEDDING_H_
