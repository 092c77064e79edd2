// What a GGUF file says of its model, in the words of Hugging Face: its metadata as a config.json, its tensors by the
// names of safetensors. So a family is read by one reader and one table of names, whatever the format.
//
// The architectures are those of llama.cpp's `general.architecture`; what it renames or rearranges when it converts a
// checkpoint is undone here.

#ifndef QUIRE_ENGINE_GGUF_MODEL_H_
#define QUIRE_ENGINE_GGUF_MODEL_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/gguf.h"
#include "engine/safetensors.h"

namespace quire {

// Whether `path` names one file rather than a directory.
bool IsGgufPath(const std::string& path);

// The text of a config.json that describes the model. INVALID_ARGUMENT in one line names the file, the key, what was
// found and what is allowed.
absl::StatusOr<std::string> GgufConfigText(const Gguf& gguf);

// The tensors, those of stacked experts one by one. Views of the file.
absl::StatusOr<std::vector<StoredTensor>> GgufTensors(const Gguf& gguf);

// The text that describes the model at `path`: config.json of a directory, or what stands for it in a GGUF file. `name`
// becomes what messages call it.
absl::StatusOr<std::string> ReadConfigText(const std::string& path, std::string& name);

}  // namespace quire

#endif  // QUIRE_ENGINE_GGUF_MODEL_H_
