// Families whose config.json has Llama's keys: Llama, Mistral, Mixtral, Qwen, Gemma, Phi-3, gpt-oss.

#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/config/families.h"
#include "engine/json_text.h"

namespace quire {
namespace {

using nlohmann::json;

// sliding_window of models that always have the key's meaning; null: none. `absent` where the key is not there at all.
int32_t ReadWindow(KeyReader& keys, int32_t absent) {
  if (keys.Find("sliding_window") == nullptr && keys.Has("sliding_window")) return 0;
  return keys.Int("sliding_window", 1, kMaxPositions, absent);
}

// Qwen's sliding_window counts only beside use_sliding_window.
int32_t ReadQwenWindow(KeyReader& keys) { return keys.Bool("use_sliding_window", false) ? ReadWindow(keys, 4096) : 0; }

void SetWindow(int32_t window, ModelConfig& config) {
  for (LayerConfig& layer : config.layers) layer.window = window;
}

// num_experts of the hub, num_local_experts of transformers 5.
MoeConfig ReadExperts(KeyReader& keys, int64_t num_experts, int64_t top_k, int32_t intermediate_size) {
  MoeConfig moe;
  const char* key = keys.Find("num_local_experts") != nullptr ? "num_local_experts" : "num_experts";
  moe.num_experts = keys.Int(key, 1, kMaxExperts, num_experts);
  moe.top_k = keys.Int("num_experts_per_tok", 1, moe.num_experts, std::min<int64_t>(top_k, moe.num_experts));
  moe.intermediate_size = intermediate_size;
  return moe;
}

void ReadQwen(KeyReader& keys, ModelConfig& config, std::optional<int32_t> head_dim) {
  ReadLlamaSizes(keys, config, head_dim);
  keys.OnlyText("hidden_act", "silu");
  config.tie_word_embeddings = keys.Bool("tie_word_embeddings", false);
  ReadOneRope(keys, config.head_dim, config);
  SetLayers(config.head_dim, config);
}

// Gemma scales scores by a number of its own, adds one to norm weights and multiplies embeddings by sqrt(hidden).
void ReadGemma(KeyReader& keys, ModelConfig& config) {
  ReadLlamaSizes(keys, config, 256);
  config.block = BlockKind::kSandwich;
  config.norm_adds_one = true;
  config.gate.kind = GateKind::kGeluTanh;
  // The hub's files carry an older hidden_act beside it, which transformers does not read.
  keys.OnlyText("hidden_activation", "gelu_pytorch_tanh");
  keys.OnlyFalse("use_bidirectional_attention");
  config.tie_word_embeddings = keys.Bool("tie_word_embeddings", true);
  config.qkv_bias = config.o_bias = keys.Bool("attention_bias", false);
  config.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(config.hidden_size)));
  SetLayers(keys.Number("query_pre_attn_scalar", 1e-3, 1e6, 256), config);
}

// 0: none.
float ReadCap(KeyReader& keys, const char* key, double absent) {
  if (keys.Find(key) == nullptr && (keys.Has(key) || absent == 0)) return 0;
  return static_cast<float>(keys.Number(key, 1e-3, 1e6, absent));
}

}  // namespace

void ReadLlama(KeyReader& keys, ModelConfig& config) {
  ReadLlamaSizes(keys, config);
  keys.OnlyText("hidden_act", "silu");
  config.tie_word_embeddings = keys.Bool("tie_word_embeddings", false);
  config.qkv_bias = config.o_bias = keys.Bool("attention_bias", false);
  config.mlp_bias = keys.Bool("mlp_bias", false);
  ReadOneRope(keys, config.head_dim, config);
  SetLayers(config.head_dim, config);
}

void ReadMistral(KeyReader& keys, ModelConfig& config) {
  keys.OnlyFalse("attention_bias");
  keys.OnlyFalse("mlp_bias");
  ReadLlama(keys, config);
  SetWindow(ReadWindow(keys, 4096), config);
}

void ReadMixtral(KeyReader& keys, ModelConfig& config) {
  ReadLlamaSizes(keys, config);
  keys.OnlyText("hidden_act", "silu");
  config.tie_word_embeddings = keys.Bool("tie_word_embeddings", false);
  ReadOneRope(keys, config.head_dim, config, {.theta = 1e6});
  SetLayers(config.head_dim, config);
  SetWindow(ReadWindow(keys, 0), config);
  config.moe = ReadExperts(keys, 8, 2, config.intermediate_size);
  config.moe->normalize = true;
  for (LayerConfig& layer : config.layers) layer.is_moe = true;
}

void ReadQwen2(KeyReader& keys, ModelConfig& config) {
  ReadQwen(keys, config, std::nullopt);
  config.qkv_bias = true;
  const int32_t window = ReadQwenWindow(keys);
  const int32_t first = keys.Int("max_window_layers", 0, kMaxLayers, 28);
  ReadLayerTypes(
      keys, window, [&](int32_t layer) { return window != 0 && layer >= first; }, config);
}

void ReadQwen3(KeyReader& keys, ModelConfig& config) {
  ReadQwen(keys, config, 128);
  config.qk_norm = true;
  config.qkv_bias = config.o_bias = keys.Bool("attention_bias", false);
  const int32_t window = ReadQwenWindow(keys);
  const int32_t first = keys.Int("max_window_layers", 0, kMaxLayers, 28);
  ReadLayerTypes(
      keys, window, [&](int32_t layer) { return window != 0 && layer >= first; }, config);
}

void ReadQwen3Moe(KeyReader& keys, ModelConfig& config) {
  ReadQwen(keys, config, std::nullopt);
  config.qk_norm = true;
  config.qkv_bias = config.o_bias = keys.Bool("attention_bias", false);
  SetWindow(ReadQwenWindow(keys), config);
  config.moe = ReadExperts(keys, 128, 8, keys.Int("moe_intermediate_size", 1, kMaxWidth, 768));
  config.moe->normalize = keys.Bool("norm_topk_prob", false);
  const int32_t step = keys.Int("decoder_sparse_step", 1, kMaxLayers, 1);
  for (int32_t l = 0; l < config.num_layers; ++l) config.layers[l].is_moe = (l + 1) % step == 0;
  const json* dense = keys.Find("mlp_only_layers");
  if (dense == nullptr) return;
  if (!dense->is_array()) return keys.Fail("mlp_only_layers", Shown(*dense), "an array of layers");
  for (const json& layer : *dense) {
    if (!IsWhole(layer, 0, config.num_layers - 1))
      return keys.Fail("mlp_only_layers", Shown(layer), absl::StrCat("layers below ", config.num_layers));
    config.layers[layer.get<int32_t>()].is_moe = false;
  }
}

void ReadGemma2(KeyReader& keys, ModelConfig& config) {
  ReadGemma(keys, config);
  ReadOneRope(keys, config.head_dim, config);
  for (LayerConfig& layer : config.layers) layer.rope = 0;
  config.attention_softcap = ReadCap(keys, "attn_logit_softcapping", 50);
  config.logits_softcap = ReadCap(keys, "final_logit_softcapping", 30);
  ReadLayerTypes(
      keys, ReadWindow(keys, 4096), [](int32_t layer) { return layer % 2 == 0; }, config);
}

void ReadGemma3(KeyReader& keys, ModelConfig& config) {
  ReadGemma(keys, config);
  config.qk_norm = true;
  config.attention_softcap = ReadCap(keys, "attn_logit_softcapping", 0);
  config.logits_softcap = ReadCap(keys, "final_logit_softcapping", 0);
  // Two bases: of the layers that see everything (rope_theta and the scaling, on the hub), and of the local ones.
  const double local = keys.Number("rope_local_base_freq", 1, 1e12, 1e4);
  const json* parameters = keys.Find("rope_parameters");
  const bool is_nested = parameters != nullptr && parameters->is_object() &&
                         (parameters->contains("full_attention") || parameters->contains("sliding_attention"));
  const int32_t len = config.max_position_embeddings;
  if (is_nested) {
    config.ropes = {ReadRopeOfLayerType(keys, "full_attention", config.head_dim, len, {.theta = 1e6}),
                    ReadRopeOfLayerType(keys, "sliding_attention", config.head_dim, len, {.theta = local})};
  } else {
    config.ropes = {ReadRope(keys, config.head_dim, len, {.theta = 1e6}), {.theta = local, .dim = config.head_dim}};
  }
  config.max_scaled_len = ScaledLen(config.ropes[0], len);
  for (LayerConfig& layer : config.layers) layer.rope = 0;
  const int32_t pattern = keys.Int("sliding_window_pattern", 1, kMaxLayers, 6);
  const auto is_sliding = [&](int32_t layer) { return (layer + 1) % pattern != 0; };
  ReadLayerTypes(keys, ReadWindow(keys, 4096), is_sliding, config, /*sliding_rope=*/1);
}

void ReadPhi3(KeyReader& keys, ModelConfig& config) {
  ReadLlamaSizes(keys, config);
  keys.OnlyText("hidden_act", "silu");
  keys.OnlyFalse("attention_bias");
  keys.OnlyFalse("mlp_bias");
  config.tie_word_embeddings = keys.Bool("tie_word_embeddings", false);
  config.qkv_layout = QkvLayout::kFused;
  config.fused_gate_up = true;
  ReadOneRope(keys, config.head_dim, config);
  if (const RopeKind kind = config.ropes[0].kind; kind != RopeKind::kDefault && kind != RopeKind::kLongRope)
    keys.Fail("rope_scaling", "another scaling", "\"longrope\", \"su\", null");
  SetLayers(config.head_dim, config);
  SetWindow(ReadWindow(keys, 0), config);
}

void ReadGptOss(KeyReader& keys, ModelConfig& config) {
  ReadLlamaSizes(keys, config, 64);
  keys.OnlyText("hidden_act", "silu");
  config.tie_word_embeddings = keys.Bool("tie_word_embeddings", false);
  config.qkv_bias = config.o_bias = keys.Bool("attention_bias", true);
  config.has_sinks = true;
  ReadOneRope(keys, config.head_dim, config, {.theta = 150000});
  SetLayers(config.head_dim, config);
  ReadLayerTypes(
      keys, ReadWindow(keys, 128), [](int32_t layer) { return layer % 2 == 0; }, config);
  MoeConfig moe = ReadExperts(keys, 128, 4, config.intermediate_size);
  moe.normalize = true;
  moe.router_bias = moe.expert_bias = true;
  moe.gate = {.kind = GateKind::kClampedSwiGlu,
              .alpha = static_cast<float>(keys.Number("swiglu_alpha", 1e-3, 1e6, 1.702)),
              .limit = static_cast<float>(keys.Number("swiglu_limit", 1e-3, 1e6, 7.0))};
  moe.layout = ExpertLayout::kStacked;
  config.moe = moe;
  for (LayerConfig& layer : config.layers) layer.is_moe = true;
}

}  // namespace quire
