// The registry of families: what config.json calls them, who reads their config, what they call their tensors. A new
// family is one entry here and one reader.

#ifndef QUIRE_ENGINE_CONFIG_REGISTRY_H_
#define QUIRE_ENGINE_CONFIG_REGISTRY_H_

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/config/key_reader.h"
#include "engine/model_config.h"
#include "engine/tensor_names.h"

namespace quire {

struct Family {
  const char* name;          // as people say it
  const char* architecture;  // config.json: architectures[0]
  const char* model_type;    // config.json: model_type, where architectures is absent
  void (*read)(KeyReader& keys, ModelConfig& config);
  TensorNames names;
};

absl::Span<const Family> Families();

// nullptr where there is none.
const Family* FindFamily(absl::string_view architecture);

}  // namespace quire

#endif  // QUIRE_ENGINE_CONFIG_REGISTRY_H_
