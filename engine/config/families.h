// The readers of config.json, one per family: each turns its family's keys into the common description.

#ifndef QUIRE_ENGINE_CONFIG_FAMILIES_H_
#define QUIRE_ENGINE_CONFIG_FAMILIES_H_

#include <functional>
#include <optional>

#include "engine/config/key_reader.h"
#include "engine/model_config.h"

namespace quire {

// Bounds of what one may ask for. Wide enough for every published model; narrow enough that no product of them
// overflows 64 bits.
constexpr int64_t kMaxVocab = 1 << 20;  // of the sampler
constexpr int64_t kMaxWidth = 1 << 20;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 256;  // of the attention kernels
constexpr int64_t kMaxPositions = 1 << 27;

// Each fills in all of `config` but architecture and dtype, and reports to `keys`.
void ReadLlama(KeyReader& keys, ModelConfig& config);
void ReadMistral(KeyReader& keys, ModelConfig& config);
void ReadMixtral(KeyReader& keys, ModelConfig& config);
void ReadQwen2(KeyReader& keys, ModelConfig& config);
void ReadQwen3(KeyReader& keys, ModelConfig& config);
void ReadQwen3Moe(KeyReader& keys, ModelConfig& config);
void ReadGemma2(KeyReader& keys, ModelConfig& config);
void ReadGemma3(KeyReader& keys, ModelConfig& config);
void ReadPhi3(KeyReader& keys, ModelConfig& config);
void ReadDeepseekV2(KeyReader& keys, ModelConfig& config);
void ReadDeepseekV3(KeyReader& keys, ModelConfig& config);
void ReadGptOss(KeyReader& keys, ModelConfig& config);
void ReadFalcon(KeyReader& keys, ModelConfig& config);
void ReadGpt2(KeyReader& keys, ModelConfig& config);
void ReadOpt(KeyReader& keys, ModelConfig& config);

// What the readers share.

// num_attention_heads, num_key_value_heads and head_dim, `head_dim` where the key is absent; nullopt: hidden / q heads.
void ReadHeads(KeyReader& keys, ModelConfig& config, std::optional<int32_t> head_dim = std::nullopt);
// The sizes, heads and RMSNorm of the families whose keys are Llama's.
void ReadLlamaSizes(KeyReader& keys, ModelConfig& config, std::optional<int32_t> head_dim = std::nullopt);
// head_dim = hidden / q heads, which must divide.
void SetHeadDim(KeyReader& keys, const char* heads_key, ModelConfig& config);
// config.layers: all alike, with scale 1 / sqrt(scale_dim) and the first rope, if there is one.
void SetLayers(double scale_dim, ModelConfig& config);
// One rope for all layers.
void ReadOneRope(KeyReader& keys, int32_t head_dim, ModelConfig& config, const RopeDefaults& defaults = {});
// By layer_types, or where that is absent by `is_sliding` (called with the layer): windows of sliding_window tokens.
// Layers that slide read rope `sliding_rope`.
void ReadLayerTypes(KeyReader& keys, int32_t window, const std::function<bool(int32_t layer)>& is_sliding,
                    ModelConfig& config, int32_t sliding_rope = 0);

}  // namespace quire

#endif  // QUIRE_ENGINE_CONFIG_FAMILIES_H_
