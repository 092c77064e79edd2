// TensorNames: what a family calls its tensors in safetensors files.

#ifndef QUIRE_ENGINE_TENSOR_NAMES_H_
#define QUIRE_ENGINE_TENSOR_NAMES_H_

namespace quire {

// Names without ".weight" or ".bias"; those of a layer stand behind prefix + layers + its number + ".". The defaults
// are Llama's, which most families keep. nullptr: the family has no such tensor. Which of them a model needs is decided
// by its config.
struct TensorNames {
  // Before all names but the head's. A checkpoint of the bare model lacks it throughout.
  const char* prefix = "model.";
  const char* embedding = "embed_tokens";
  const char* positions = nullptr;
  const char* project_in = nullptr;
  const char* project_out = nullptr;
  const char* layers = "layers.";
  const char* final_norm = "norm";
  const char* head = "lm_head";  // without the prefix

  const char* attention_norm = "input_layernorm";
  const char* post_attention_norm = nullptr;  // of kSandwich
  const char* mlp_norm = "post_attention_layernorm";
  const char* post_mlp_norm = nullptr;            // of kSandwich
  const char* parallel_attention_norm = nullptr;  // kParallel with two norms: names of their own
  const char* parallel_mlp_norm = nullptr;

  const char* q = "self_attn.q_proj";
  const char* k = "self_attn.k_proj";
  const char* v = "self_attn.v_proj";
  const char* qkv = nullptr;  // of the fused layouts
  const char* o = "self_attn.o_proj";
  const char* q_norm = "self_attn.q_norm";
  const char* k_norm = "self_attn.k_norm";
  const char* sinks = "self_attn.sinks";  // the tensor itself

  const char* gate = "mlp.gate_proj";
  const char* up = "mlp.up_proj";
  const char* gate_up = nullptr;  // where they are one
  const char* down = "mlp.down_proj";

  const char* router = "mlp.gate";
  const char* correction_bias = "mlp.gate.e_score_correction_bias";  // the tensor itself
  const char* experts = "mlp.experts";  // then "." and the number, or the stacked tensor's name
  const char* expert_gate = "gate_proj";
  const char* expert_up = "up_proj";
  const char* expert_gate_up = "gate_up_proj";  // where experts are stacked
  const char* expert_down = "down_proj";
  const char* shared = "mlp.shared_experts";

  const char* q_a = "self_attn.q_a_proj";  // latent attention
  const char* q_a_norm = "self_attn.q_a_layernorm";
  const char* q_b = "self_attn.q_b_proj";
  const char* kv_a = "self_attn.kv_a_proj_with_mqa";
  const char* kv_a_norm = "self_attn.kv_a_layernorm";
  const char* kv_b = "self_attn.kv_b_proj";
  const char* k_b = "self_attn.k_b_proj";  // the two parts of it where they are tensors of their own
  const char* v_b = "self_attn.v_b_proj";

  bool is_transposed = false;  // matrices of the layers are [in, out] (GPT-2's Conv1D)
};

}  // namespace quire

#endif  // QUIRE_ENGINE_TENSOR_NAMES_H_
