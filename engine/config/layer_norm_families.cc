// Families with LayerNorm and an MLP of two matrices: Falcon, GPT-2, OPT.

#include "absl/strings/str_cat.h"
#include "engine/config/families.h"
#include "engine/json_text.h"

namespace quire {
namespace {

constexpr double kMinEps = 1e-12;

void ReadActivation(KeyReader& keys, const char* key, absl::string_view absent, ModelConfig& config) {
  const std::string name =
      keys.Text(key, {"gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "silu", "swish"}, absent);
  if (name == "gelu") config.activation = ActivationKind::kGeluErf;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast")
    config.activation = ActivationKind::kGeluTanh;
  if (name == "relu") config.activation = ActivationKind::kRelu;
  if (name == "silu" || name == "swish") config.activation = ActivationKind::kSilu;
}

void BeginLayerNormFamily(ModelConfig& config) {
  config.norm = NormKind::kLayer;
  config.gated_mlp = false;
}

}  // namespace

void ReadFalcon(KeyReader& keys, ModelConfig& config) {
  BeginLayerNormFamily(config);
  config.vocab_size = keys.Int("vocab_size", 1, kMaxVocab);
  config.hidden_size = keys.Int(keys.Find("n_embed") != nullptr ? "n_embed" : "hidden_size", 1, kMaxWidth);
  config.num_layers = keys.Int("num_hidden_layers", 1, kMaxLayers);
  config.q_heads = keys.Int("num_attention_heads", 1, kMaxHeads);
  config.max_position_embeddings = keys.Int("max_position_embeddings", 2, kMaxPositions, 2048);
  config.norm_eps = static_cast<float>(keys.Number("layer_norm_epsilon", kMinEps, 1.0, 1e-5));
  config.tie_word_embeddings = keys.Bool("tie_word_embeddings", true);
  config.qkv_bias = config.o_bias = config.mlp_bias = keys.Bool("bias", false);
  config.intermediate_size =
      keys.Int("ffn_hidden_size", 1, kMaxWidth, std::min<int64_t>(4 * int64_t{config.hidden_size}, kMaxWidth));
  ReadActivation(keys, "activation", "gelu", config);
  SetHeadDim(keys, "num_attention_heads", config);

  // The new architecture (40B, 180B, 11B) ignores multi_query and parallel_attn.
  const bool is_new = keys.Bool("new_decoder_architecture", false), multi_query = keys.Bool("multi_query", true);
  const bool is_parallel = keys.Bool("parallel_attn", true) || is_new;
  config.block = is_parallel ? BlockKind::kParallel : BlockKind::kPreNorm;
  config.qkv_layout = !is_new && multi_query ? QkvLayout::kFused : QkvLayout::kByKvHead;
  config.kv_heads = !is_new && multi_query ? 1 : keys.Int("num_kv_heads", 1, kMaxHeads, config.q_heads);
  const bool fits = is_new || multi_query ? config.q_heads % config.kv_heads == 0 : config.q_heads == config.kv_heads;
  if (!fits) {
    keys.Fail("num_kv_heads", absl::StrCat(config.kv_heads),
              absl::StrCat(is_new ? "a divisor of" : "the same as", " num_attention_heads = ", config.q_heads));
  }
  // Only the new architecture has two norms side by side, unless it says one (11B).
  const int32_t num_norms = keys.Int("num_ln_in_parallel_attn", 1, 2, is_new ? 2 : 1);
  if (num_norms == 2 && !is_new) keys.Fail("num_ln_in_parallel_attn", "2", "1, without new_decoder_architecture");
  config.shares_norm = is_parallel && num_norms == 1;

  config.has_alibi = keys.Bool("alibi", false);
  if (!config.has_alibi) ReadOneRope(keys, config.head_dim, config);
  SetLayers(config.head_dim, config);
}

void ReadGpt2(KeyReader& keys, ModelConfig& config) {
  BeginLayerNormFamily(config);
  config.vocab_size = keys.Int("vocab_size", 1, kMaxVocab);
  config.hidden_size = keys.Int("n_embd", 1, kMaxWidth);
  config.num_layers = keys.Int("n_layer", 1, kMaxLayers);
  config.q_heads = config.kv_heads = keys.Int("n_head", 1, kMaxHeads);
  config.max_position_embeddings = keys.Int("n_positions", 2, kMaxPositions);
  config.num_learned_positions = config.max_position_embeddings;
  config.norm_eps = static_cast<float>(keys.Number("layer_norm_epsilon", kMinEps, 1.0, 1e-5));
  config.tie_word_embeddings = keys.Bool("tie_word_embeddings", true);
  config.qkv_layout = QkvLayout::kFused;
  config.qkv_bias = config.o_bias = config.mlp_bias = true;
  config.intermediate_size =
      keys.Int("n_inner", 1, kMaxWidth, std::min<int64_t>(4 * int64_t{config.hidden_size}, kMaxWidth));
  ReadActivation(keys, "activation_function", "gelu_new", config);
  keys.OnlyFalse("add_cross_attention");
  SetHeadDim(keys, "n_head", config);
  SetLayers(keys.Bool("scale_attn_weights", true) ? config.head_dim : 1, config);
  if (keys.Bool("scale_attn_by_inverse_layer_idx", false)) {
    for (int32_t l = 0; l < config.num_layers; ++l) config.layers[l].scale /= static_cast<float>(l + 1);
  }
}

void ReadOpt(KeyReader& keys, ModelConfig& config) {
  BeginLayerNormFamily(config);
  config.vocab_size = keys.Int("vocab_size", 1, kMaxVocab);
  config.hidden_size = keys.Int("hidden_size", 1, kMaxWidth);
  config.embedding_size = keys.Int("word_embed_proj_dim", 1, kMaxWidth, config.hidden_size);
  config.num_layers = keys.Int("num_hidden_layers", 1, kMaxLayers);
  config.q_heads = config.kv_heads = keys.Int("num_attention_heads", 1, kMaxHeads);
  config.intermediate_size = keys.Int("ffn_dim", 1, kMaxWidth);
  config.max_position_embeddings = keys.Int("max_position_embeddings", 2, kMaxPositions);
  config.learned_position_offset = 2;
  config.num_learned_positions = config.max_position_embeddings + config.learned_position_offset;
  config.norm_eps = 1e-5f;
  config.tie_word_embeddings = keys.Bool("tie_word_embeddings", true);
  config.qkv_bias = config.o_bias = config.mlp_bias = keys.Bool("enable_bias", true);
  if (!keys.Bool("layer_norm_elementwise_affine", true)) keys.Fail("layer_norm_elementwise_affine", "false", "true");
  const bool norm_first = keys.Bool("do_layer_norm_before", true);
  config.block = norm_first ? BlockKind::kPreNorm : BlockKind::kPostNorm;
  config.final_norm = norm_first;
  keys.OnlyFalse("_remove_final_layer_norm");
  ReadActivation(keys, "activation_function", "relu", config);
  SetHeadDim(keys, "num_attention_heads", config);
  SetLayers(config.head_dim, config);
}

}  // namespace quire
