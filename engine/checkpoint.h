// Checkpoint: the tensors of a model, from a directory's model.safetensors or the shards that
// model.safetensors.index.json names, or from one GGUF file.

#ifndef QUIRE_ENGINE_CHECKPOINT_H_
#define QUIRE_ENGINE_CHECKPOINT_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/mapped_file.h"
#include "engine/safetensors.h"

namespace quire {

class Checkpoint {
 public:
  // Maps the files and checks their headers. Errors in one line name the file and, where one is at fault, the tensor.
  static absl::StatusOr<Checkpoint> Open(const std::string& path);

  struct Entry {
    std::string file;  // for messages
    StoredTensor tensor;
  };
  const std::map<std::string, Entry>& tensors() const { return tensors_; }  // by name

  // The quantised format of most of the quantised bytes; kNone where nothing is quantised.
  BlockFormat MostBlocks() const;

 private:
  absl::Status AddFile(const std::string& path);
  absl::Status AddGguf(const std::string& path);
  // Gives FP8 tensors the scales beside them (NAME_scale_inv, NAME_scale), which then are no tensors of their own.
  absl::Status TakeFp8Scales();
  absl::Status AddTensors(const std::string& path, std::vector<StoredTensor> tensors);
  absl::Status AddShards(const std::string& directory, const std::string& index_path);

  std::vector<MappedFile> files_;
  std::map<std::string, Entry> tensors_;
};

}  // namespace quire

#endif  // QUIRE_ENGINE_CHECKPOINT_H_
