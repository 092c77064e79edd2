// GenerationConfig: what a model's directory says of how to draw and when to stop (generation_config.json).
//
// A model directory is untrusted: values are checked as a client's are, and a bad one is the operator's error.

#ifndef QUIRE_SERVER_GENERATION_CONFIG_H_
#define QUIRE_SERVER_GENERATION_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/sampling/sampling.h"

namespace quire {

struct GenerationConfig {
  SamplingParams sampling;        // what a request's absent fields mean; the seed is drawn anew for each request
  std::vector<uint32_t> eos_ids;  // ascending; may be empty
};

// Reads `directory`/generation_config.json, if it is there and `use_generation_config`; eos ids come from there, else
// from config.json, or from the metadata of a GGUF file. INVALID_ARGUMENT in one line names the file, the key, what was
// found and what is allowed.
absl::StatusOr<GenerationConfig> LoadGenerationConfig(const std::string& directory, bool use_generation_config,
                                                      uint32_t vocab_size);

// The same from the files' texts; an empty text is an absent file.
absl::StatusOr<GenerationConfig> ParseGenerationConfig(absl::string_view generation_config, absl::string_view config,
                                                       uint32_t vocab_size);

}  // namespace quire

#endif  // QUIRE_SERVER_GENERATION_CONFIG_H_
