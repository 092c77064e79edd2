// RopeConfig: how a model's rotary position embeddings are scaled, read from rope_parameters (transformers 5) or from
// rope_theta and rope_scaling (the hub's files).

#ifndef QUIRE_ENGINE_CONFIG_ROPE_CONFIG_H_
#define QUIRE_ENGINE_CONFIG_ROPE_CONFIG_H_

#include <cstdint>
#include <vector>

#include "engine/config/key_reader.h"

namespace quire {

enum class RopeKind {
  kDefault,
  kLinear,    // positions divided by a factor (Chen et al. 2023)
  kDynamic,   // NTK-aware: the base grows with the length
  kYarn,      // Peng et al. 2023: high frequencies stay, low ones are divided
  kLongRope,  // Ding et al. 2024: a factor for each frequency
  kLlama3,    // Llama 3.1: long wavelengths are divided
};

struct RopeConfig {
  RopeKind kind = RopeKind::kDefault;
  double theta = 10000.0;
  int32_t dim = 0;              // of a head that the frequencies are for: exponent 2i / dim, i < NumFrequencies()
  bool interleaved = false;     // pairs (2i, 2i + 1); else (i, i + rotary_dim / 2)
  double factor = 1.0;          // >= 1; all but kDefault
  int32_t original_len = 0;     // tokens before scaling; kDynamic: max_position_embeddings
  double attention_factor = 1;  // multiplies cosines and sines; kYarn, kLongRope
  double mscale_all_dim = 0;    // kYarn: DeepSeek's factor of the softmax scale, 0: none
  double beta_fast = 32, beta_slow = 1;                     // kYarn
  bool truncate = true;                                     // kYarn: whole dims as the ramp's ends
  double low_freq_factor = 1, high_freq_factor = 4;         // kLlama3
  std::vector<double> short_factor = {}, long_factor = {};  // kLongRope: [NumFrequencies()]

  int32_t NumFrequencies() const { return (dim + 1) / 2; }
  // Dims of a head that are rotated: an odd `dim` is rounded up.
  int32_t rotary_dim() const { return 2 * NumFrequencies(); }
};

struct RopeDefaults {
  double theta = 10000.0;
  bool interleaved = false;
};

// Reads the scaling of a model whose heads have `head_dim` rotary dims, or a part of them by partial_rotary_factor.
// `max_len` is max_position_embeddings. Errors go to `keys`.
RopeConfig ReadRope(KeyReader& keys, int32_t head_dim, int32_t max_len, const RopeDefaults& defaults = {});

// The same for models that nest one object for each kind of layer under rope_parameters; `keys` is the config. nullopt
// where `layer_type` has none there.
RopeConfig ReadRopeOfLayerType(KeyReader& keys, const char* layer_type, int32_t head_dim, int32_t max_len,
                               const RopeDefaults& defaults);

// The longest context that the scaling allows, at least `max_len`.
int32_t ScaledLen(const RopeConfig& rope, int32_t max_len);

}  // namespace quire

#endif  // QUIRE_ENGINE_CONFIG_ROPE_CONFIG_H_
