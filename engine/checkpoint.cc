#include "engine/checkpoint.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/gguf.h"
#include "engine/gguf_model.h"
#include "engine/json_text.h"

namespace quire {
namespace {

// A shard lies in the directory itself: the index must not lead elsewhere.
bool IsShardName(const nlohmann::json& value) {
  constexpr size_t kLongest = 255;  // NAME_MAX
  if (!value.is_string()) return false;
  const std::string& name = value.get_ref<const std::string&>();
  return name.size() <= kLongest && !absl::StrContains(name, '/') && !absl::StrContains(name, '\0') &&
         absl::EndsWith(name, ".safetensors");
}

constexpr uint64_t kMaxIndexBytes = 100'000'000;

bool Exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

// The scales of the FP8 matrix `of`: one, or one for each block of 128 x 128.
absl::StatusOr<Fp8Scales> ReadFp8Scales(const StoredTensor& stored, const StoredTensor& of) {
  const auto blocks = [](int64_t n) { return (n + Fp8Scales::kBlock - 1) / Fp8Scales::kBlock; };
  const bool is_matrix = of.shape.size() == 2;
  const bool is_one = stored.shape.empty() || stored.shape == std::vector<int64_t>{1};
  const bool is_blocks = is_matrix && stored.shape == std::vector<int64_t>{blocks(of.shape[0]), blocks(of.shape[1])};
  if (stored.fp8 != nullptr || stored.blocks != BlockFormat::kNone || (!is_one && !is_blocks)) {
    return absl::InvalidArgumentError(
        absl::StrCat("found shape [", absl::StrJoin(stored.shape, ", "),
                     "], allowed: one number, or one for each block of 128 x 128 of the tensor that it scales"));
  }
  Fp8Scales scales;
  scales.block_cols = is_one ? 0 : stored.shape[1];
  const size_t element_bytes = DTypeBytes(stored.dtype);
  scales.values.resize(stored.bytes / element_bytes);
  for (size_t i = 0; i < scales.values.size(); ++i) {
    alignas(4) std::byte element[4];
    std::memcpy(element, stored.data + i * element_bytes, element_bytes);
    scales.values[i] = LoadFloat(element, stored.dtype, 0);
    if (!std::isfinite(scales.values[i]))
      return absl::InvalidArgumentError(absl::StrCat("found ", scales.values[i], " at index ", i, ", allowed: finite"));
  }
  return scales;
}

}  // namespace

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& path) {
  const std::string &directory = path, single = path + "/model.safetensors",
                    index = path + "/model.safetensors.index.json";
  Checkpoint checkpoint;
  absl::Status status;
  if (IsGgufPath(path)) {
    status = checkpoint.AddGguf(path);
  } else if (Exists(single)) {
    status = checkpoint.AddFile(single);
  } else if (Exists(index)) {
    status = checkpoint.AddShards(directory, index);
  } else {
    status = absl::NotFoundError(
        absl::StrCat(directory, ": found neither model.safetensors nor model.safetensors.index.json"));
  }
  status.Update(checkpoint.TakeFp8Scales());
  if (!status.ok()) return status;
  return checkpoint;
}

absl::Status Checkpoint::TakeFp8Scales() {
  std::vector<std::string> taken;
  for (auto& [name, entry] : tensors_) {
    StoredTensor& tensor = entry.tensor;
    if (tensor.fp8 == nullptr) continue;
    auto found = tensors_.find(name + "_scale_inv");  // of which both are multiplied
    if (found == tensors_.end()) found = tensors_.find(name + "_scale");
    if (found == tensors_.end()) continue;
    absl::StatusOr<Fp8Scales> scales = ReadFp8Scales(found->second.tensor, tensor);
    if (!scales.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(found->second.file, ": tensor ", Quoted(found->first), ": ",
                                                     absl::string_view(scales.status().message())));
    }
    tensor.fp8 = std::make_shared<const Fp8Scales>(*std::move(scales));
    taken.push_back(found->first);
  }
  for (const std::string& name : taken) tensors_.erase(name);
  return absl::OkStatus();
}

absl::Status Checkpoint::AddFile(const std::string& path) {
  absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<std::vector<StoredTensor>> tensors = ParseSafetensors(file->bytes(), path);
  if (!tensors.ok()) return tensors.status();
  files_.push_back(*std::move(file));
  return AddTensors(path, *std::move(tensors));
}

absl::Status Checkpoint::AddGguf(const std::string& path) {
  absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const absl::StatusOr<Gguf> gguf = ParseGguf(file->bytes(), path);
  if (!gguf.ok()) return gguf.status();
  absl::StatusOr<std::vector<StoredTensor>> tensors = GgufTensors(*gguf);
  if (!tensors.ok()) return tensors.status();
  files_.push_back(*std::move(file));
  return AddTensors(path, *std::move(tensors));
}

absl::Status Checkpoint::AddTensors(const std::string& path, std::vector<StoredTensor> tensors) {
  for (StoredTensor& tensor : tensors) {
    const std::string name = tensor.name;
    const auto [there, is_new] = tensors_.try_emplace(name, Entry{path, std::move(tensor)});
    if (!is_new) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor ", Quoted(name), ": found in ", there->second.file, " too, allowed once"));
    }
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::AddShards(const std::string& directory, const std::string& index_path) {
  absl::StatusOr<std::string> text = ReadTextFile(index_path, kMaxIndexBytes);
  if (!text.ok()) return text.status();
  absl::StatusOr<nlohmann::json> index = ParseJsonObject(*text, index_path);
  if (!index.ok()) return index.status();
  const auto error = [&](auto... parts) {
    return absl::InvalidArgumentError(absl::StrCat(index_path, ": ", parts...));
  };
  const auto map = index->find("weight_map");
  if (map == index->end() || !map->is_object())
    return error("weight_map: found none, allowed: {tensor name: file name}");

  std::set<std::string> shards;
  for (const auto& [name, shard] : map->items()) {
    if (!IsShardName(shard)) {
      return error("weight_map[", Quoted(name), "]: found ", Shown(shard), ", allowed: a file name NAME.safetensors");
    }
    shards.insert(shard.get<std::string>());
  }
  for (const std::string& shard : shards) {
    if (const absl::Status status = AddFile(absl::StrCat(directory, "/", shard)); !status.ok()) return status;
  }
  for (const auto& [name, shard] : map->items()) {
    const std::string path = absl::StrCat(directory, "/", shard.get_ref<const std::string&>());
    const auto entry = tensors_.find(name);
    if (entry == tensors_.end() || entry->second.file != path) {
      return error("weight_map[", Quoted(name), "]: found no such tensor in ", path);
    }
  }
  return absl::OkStatus();
}

BlockFormat Checkpoint::MostBlocks() const {
  std::map<BlockFormat, uint64_t> bytes;
  for (const auto& [name, entry] : tensors_) {
    if (entry.tensor.blocks != BlockFormat::kNone) bytes[entry.tensor.blocks] += entry.tensor.bytes;
  }
  const auto most =
      std::max_element(bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? BlockFormat::kNone : most->first;
}

}  // namespace quire
