#include "engine/config/families.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/json_text.h"

namespace quire {
namespace {

void CheckHeadDim(KeyReader& keys, absl::string_view key, int32_t head_dim) {
  if (head_dim < 2 || head_dim > kMaxHeadDim || head_dim % 2 != 0)
    keys.Fail(key, absl::StrCat(head_dim), absl::StrCat("an even number from 2 to ", kMaxHeadDim));
}

}  // namespace

void SetHeadDim(KeyReader& keys, const char* heads_key, ModelConfig& config) {
  if (config.hidden_size % config.q_heads != 0) {
    keys.Fail(heads_key, absl::StrCat(config.q_heads),
              absl::StrCat("a divisor of hidden_size = ", config.hidden_size, " where head_dim is absent"));
  }
  config.head_dim = config.hidden_size / config.q_heads;
  CheckHeadDim(keys, absl::StrCat("hidden_size / ", heads_key), config.head_dim);
}

void ReadHeads(KeyReader& keys, ModelConfig& config, std::optional<int32_t> head_dim) {
  config.q_heads = keys.Int("num_attention_heads", 1, kMaxHeads);
  config.kv_heads = keys.Int("num_key_value_heads", 1, kMaxHeads, config.q_heads);
  if (config.q_heads % config.kv_heads != 0) {
    keys.Fail("num_key_value_heads", absl::StrCat(config.kv_heads),
              absl::StrCat("a divisor of num_attention_heads = ", config.q_heads));
  }
  if (keys.Find("head_dim") == nullptr && !head_dim.has_value()) return SetHeadDim(keys, "num_attention_heads", config);
  config.head_dim = keys.Int("head_dim", 2, kMaxHeadDim, head_dim);
  CheckHeadDim(keys, "head_dim", config.head_dim);
}

void ReadLlamaSizes(KeyReader& keys, ModelConfig& config, std::optional<int32_t> head_dim) {
  config.vocab_size = keys.Int("vocab_size", 1, kMaxVocab);
  config.hidden_size = keys.Int("hidden_size", 1, kMaxWidth);
  config.intermediate_size = keys.Int("intermediate_size", 1, kMaxWidth);
  config.num_layers = keys.Int("num_hidden_layers", 1, kMaxLayers);
  ReadHeads(keys, config, head_dim);
  config.max_position_embeddings = keys.Int("max_position_embeddings", 2, kMaxPositions);
  config.norm_eps = static_cast<float>(keys.Number("rms_norm_eps", 1e-12, 1.0));
}

void SetLayers(double scale_dim, ModelConfig& config) {
  LayerConfig layer{.scale = 1.0f / std::sqrt(static_cast<float>(scale_dim))};
  if (!config.ropes.empty()) layer.rope = 0;
  config.layers.assign(config.num_layers, layer);
}

void ReadOneRope(KeyReader& keys, int32_t head_dim, ModelConfig& config, const RopeDefaults& defaults) {
  config.ropes = {ReadRope(keys, head_dim, config.max_position_embeddings, defaults)};
  config.max_scaled_len = ScaledLen(config.ropes[0], config.max_position_embeddings);
}

void ReadLayerTypes(KeyReader& keys, int32_t window, const std::function<bool(int32_t layer)>& is_sliding,
                    ModelConfig& config, int32_t sliding_rope) {
  const nlohmann::json* types = keys.Find("layer_types");
  const std::string allowed =
      absl::StrCat("an array of ", config.num_layers, " times \"full_attention\" or \"sliding_attention\"");
  if (types != nullptr && (!types->is_array() || types->size() != size_t(config.num_layers))) {
    const std::string found = types->is_array() ? absl::StrCat("an array of ", types->size()) : Shown(*types);
    return keys.Fail("layer_types", found, allowed);
  }
  for (int32_t l = 0; l < config.num_layers; ++l) {
    bool slides = is_sliding(l);
    if (types != nullptr) {
      const nlohmann::json& type = (*types)[l];
      slides = type == "sliding_attention";
      if (!slides && type != "full_attention") return keys.Fail("layer_types", Shown(type), allowed);
    }
    if (!slides) continue;
    config.layers[l].window = window;
    config.layers[l].rope = sliding_rope;
  }
}

}  // namespace quire
