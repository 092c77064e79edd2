// ModelConfig: an architecture's numbers, read from config.json and validated. A model directory is untrusted: every
// number is checked.

#ifndef QUIRE_ENGINE_MODEL_CONFIG_H_
#define QUIRE_ENGINE_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/dtype.h"
#include "kvcache/kv_cache_spec.h"

namespace quire {

struct ModelConfig {
  std::string architecture;  // e.g. "LlamaForCausalLM"
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t num_layers = 0;
  int32_t q_heads = 0;
  int32_t kv_heads = 0;  // divides q_heads
  int32_t head_dim = 0;
  int32_t max_position_embeddings = 0;
  float rms_norm_eps = 1e-5f;
  double rope_theta = 10000.0;
  bool tie_word_embeddings = false;
  DType dtype = DType::kBFloat16;  // the checkpoint's

  // Parameters of the model (tied ones once).
  uint64_t NumParameters() const;
};

// Reads `directory`/config.json. INVALID_ARGUMENT in one line names the file, the key, what was found and what is
// allowed.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& directory);

// The same from the text of a config.json; `name` is what messages call it.
absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view text, absl::string_view name);

}  // namespace quire

#endif  // QUIRE_ENGINE_MODEL_CONFIG_H_
