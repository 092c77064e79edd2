// WorkspaceShape: the largest shapes that the operations of a backend will meet, from which their scratch memory is
// sized.

#ifndef QUIRE_KERNELS_WORKSPACE_H_
#define QUIRE_KERNELS_WORKSPACE_H_

#include <cstdint>

namespace quire {

struct WorkspaceShape {
  int64_t max_rows = 0;       // rows of a step: --max-num-batched-tokens
  int64_t max_head_rows = 0;  // rows of logits at once
  int64_t max_cols = 0;       // widest activation
  int64_t vocab_size = 0;
  int32_t q_heads = 0, kv_heads = 0, head_dim = 0;
  int64_t max_context = 0;  // --max-model-len
  // Latent attention, and HeadLinear around it: 0 heads if there is none.
  int32_t latent_heads = 0, latent_dim = 0, latent_rope_dim = 0;
  int32_t head_linear_dim = 0;  // the largest n or k of a HeadLinear weight
  // Mixture of experts: 0 experts if there is none.
  int32_t num_experts = 0, experts_per_token = 0, hidden = 0, expert_intermediate = 0;
  int32_t max_sequences = 0;  // --max-num-seqs
  int32_t block_size = 8;     // slots, at least
  int32_t num_kv_groups = 1;  // of layers, each with block tables of its own
  bool quantized_weights = false;
  bool quantized_cache = false;
};

}  // namespace quire

#endif  // QUIRE_KERNELS_WORKSPACE_H_
