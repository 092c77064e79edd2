// Embedding: x[r, :] = scale * table[ids[r], :], or x[r, :] += scale * table[ids[r], :].
//
// `scale` is for the families that scale their embeddings (Gemma, by the root of the hidden size, rounded to the
// model's type); `accumulate` adds learned positions (GPT-2, OPT): a second call whose ids are the positions. Example:
// table = [[1, 2], [3, 4]], ids = [1, 0, 1] gives x = [[3, 4], [1, 2], [3, 4]].
//
// An id may be that of a token which the host has not seen: kDrawn | d stands for the token of draw d of the step
// before, counted over the rows of its Sample calls.

#ifndef QUIRE_KERNELS_EMBEDDING_EMBEDDING_H_
#define QUIRE_KERNELS_EMBEDDING_EMBEDDING_H_

#include <cstdint>

#include "kernels/linear/linear.h"
#include "kernels/sampling/sampling.h"
#include "kernels/tensor.h"

namespace quire {

constexpr uint32_t kDrawn = uint32_t{1} << 31;  // beyond every vocabulary

struct EmbeddingArgs {
  const uint32_t* ids;        // [x.rows], each < table->n, or kDrawn | d
  const LinearWeight* table;  // [n = vocab_size, k = hidden]: a packed weight, so that tied embeddings are stored once
  Tensor x;                   // out: float32 [num_rows, hidden]
  float scale = 1;
  bool accumulate = false;  // x += instead of x =
  // Of the step before, if any id asks for one. What Sample was given there; a device has its own copy.
  const SampledToken* drawn = nullptr;

  uint32_t Id(int64_t row) const { return (ids[row] & kDrawn) != 0 ? drawn[ids[row] & ~kDrawn].id : ids[row]; }
};

}  // namespace quire

#endif  // QUIRE_KERNELS_EMBEDDING_EMBEDDING_H_
