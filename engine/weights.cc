#include "engine/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "engine/config/registry.h"
#include "engine/json_text.h"
#include "engine/mapped_file.h"
#include "engine/mxfp4.h"
#include "engine/read_ahead.h"
#include "engine/stored_tensor.h"
#include "engine/weight_specs.h"
#include "kernels/linear/blocks.h"

namespace quire {
namespace {

// Where weights come from: a checkpoint or a random generator.
using PartSource = std::function<MatrixSource(const WeightSpec& spec, const TensorPart& part)>;

// What PackLinear is asked for: the format of the parts that are stored as numbers.
WeightFormat FormatFor(const WeightSpec& spec, WeightFormat format) {
  if (spec.packing == Packing::kNumbers) return format.dtype;
  const bool is_int4 = format.blocks == BlockFormat::kQ4_0;
  return {format.dtype, is_int4 && spec.packing == Packing::kVocabulary ? BlockFormat::kQ8_0 : format.blocks};
}

absl::Status PackMatrix(const WeightSpec& spec, WeightFormat format, const PartSource& source, Backend& backend) {
  std::vector<MatrixSource> parts;
  for (const TensorPart& part : spec.parts) {
    parts.push_back(source(spec, part));
    if (spec.packing == Packing::kNumbers || !KeepsBlocks(format)) parts.back() = AsNumbers(std::move(parts.back()));
  }
  absl::StatusOr<LinearWeight> weight = backend.PackLinear(parts, FormatFor(spec, format));
  if (weight.ok()) *spec.matrix = *std::move(weight);
  return weight.status();
}

// In float32.
absl::Status FillVector(const WeightSpec& spec, const PartSource& source, Backend& backend) {
  absl::StatusOr<Buffer> buffer = backend.Allocate(spec.size() * sizeof(float));
  if (!buffer.ok()) return buffer.status();
  std::vector<float> values;
  values.reserve(spec.size());
  for (const TensorPart& part : spec.parts) {
    const MatrixSource from = source(spec, part);
    std::vector<std::byte> row(static_cast<size_t>(RowBytes(from.format, from.cols)));
    for (int64_t r = 0; r < from.rows; ++r) {
      from.read_row(r, row.data());
      for (int64_t c = 0; c < from.cols; ++c)
        values.push_back(LoadFloat(row.data(), from.format.dtype, c) + spec.addend);
    }
  }
  const absl::Status status = backend.CopyToDevice(buffer->data(), values.data(), values.size() * sizeof(float));
  spec.vector->buffer = *std::move(buffer);
  return status;
}

absl::StatusOr<Weights> BuildWeights(const ModelConfig& config, absl::string_view prefix, WeightFormat format,
                                     const PartSource& source, Backend& backend, const LoadProgress& progress) {
  Weights weights;
  uint64_t packed_bytes = 0;
  for (const WeightSpec& spec : WeightSpecs(config, prefix, weights)) {
    const absl::Status status =
        spec.matrix != nullptr ? PackMatrix(spec, format, source, backend) : FillVector(spec, source, backend);
    if (!status.ok()) return status;
    packed_bytes += spec.matrix != nullptr ? spec.matrix->data.bytes() : spec.vector->buffer.bytes();
    if (progress) progress(packed_bytes);
  }
  return weights;
}

// Gives back the pages of what `part` is of, elements of `num` bytes to `den` of them, behind its last row: a model
// must not be in memory twice. Where others read there still, they find the pages in the system's cache.
void ReleaseBehind(const TensorPart& part, int64_t row, const std::byte* data, int64_t num, int64_t den) {
  if (row + 1 != part.rows) return;
  const int64_t begin = part.Index(0, 0), end = part.Index(part.rows - 1, part.cols - 1) + 1;
  ReleasePages(data + begin * num / den, data + end * num / den);
}

// Each group of 32 values with its scale, as block formats lie.
MatrixSource FromMxfp4(const Checkpoint& checkpoint, const TensorPart& part) {
  const std::byte* const codes_data = checkpoint.tensors().at(part.name + "_blocks").tensor.data;
  const auto* const scales =
      reinterpret_cast<const uint8_t*>(checkpoint.tensors().at(part.name + "_scales").tensor.data);
  const auto read_row = [=](int64_t row, void* to) {
    const auto* const codes = reinterpret_cast<const uint8_t*>(codes_data);
    const int64_t first = part.Index(row, 0) / kMxfp4Group;
    for (int64_t g = 0; g < part.cols / kMxfp4Group; ++g) {
      ToMxfp4Block(codes + (first + g) * (kMxfp4Group / 2), scales[first + g],
                   static_cast<uint8_t*>(to) + g * InfoOf(BlockFormat::kMxfp4).bytes);
    }
    ReleaseBehind(part, row, codes_data, 1, 2);
  };
  return {
      .format = {DType::kBFloat16, BlockFormat::kMxfp4}, .rows = part.rows, .cols = part.cols, .read_row = read_row};
}

// Small parts only: all rows of the file that the part touches are unpacked at once, by whoever reads first.
MatrixSource GatherQuantized(const StoredTensor& stored, const TensorPart& part) {
  struct Unpacked {
    std::once_flag once;
    std::vector<float> values;
  };
  const int64_t cols = stored.shape.back(), row_bytes = RowBytes(stored.format(), cols);
  const int64_t begin = part.offset / cols, end = part.Index(part.rows - 1, part.cols - 1) / cols + 1;
  const auto read_row = [=, &stored, unpacked = std::make_shared<Unpacked>()](int64_t row, void* to) {
    std::call_once(unpacked->once, [&] {
      unpacked->values.resize(static_cast<size_t>((end - begin) * cols));
      for (int64_t r = begin; r < end; ++r)
        DequantizeRow(stored.blocks, stored.data + r * row_bytes, cols, unpacked->values.data() + (r - begin) * cols);
    });
    for (int64_t c = 0; c < part.cols; ++c)
      static_cast<float*>(to)[c] = unpacked->values[static_cast<size_t>(part.Index(row, c) - begin * cols)];
  };
  return {.format = DType::kFloat32, .rows = part.rows, .cols = part.cols, .read_row = read_row};
}

// Columns apart in the file, one by one; of a quantised tensor once all of its rows that the part touches are numbers.
MatrixSource Gather(const StoredTensor& stored, const TensorPart& part) {
  if (stored.blocks != BlockFormat::kNone) return GatherQuantized(stored, part);
  const auto bytes = static_cast<int64_t>(DTypeBytes(stored.dtype));
  const auto read_row = [part, bytes, data = stored.data](int64_t row, void* to) {
    for (int64_t c = 0; c < part.cols; ++c)
      std::memcpy(static_cast<std::byte*>(to) + c * bytes, data + part.Index(row, c) * bytes, bytes);
    ReleaseBehind(part, row, data, bytes, 1);
  };
  return {.format = stored.dtype, .rows = part.rows, .cols = part.cols, .read_row = read_row};
}

// Elements of one byte with their scales.
MatrixSource FromFp8(const StoredTensor& stored, const TensorPart& part) {
  const auto read_row = [&stored, part](int64_t row, void* to) {
    for (int64_t c = 0; c < part.cols; ++c) static_cast<float*>(to)[c] = Fp8Value(stored, part.Index(row, c));
    const bool is_last = row + 1 == part.rows;
    if (is_last && part.HasPlainRows()) ReleasePages(stored.data, stored.data + stored.bytes);
  };
  return {.format = DType::kFloat32, .rows = part.rows, .cols = part.cols, .read_row = read_row};
}

// What packing finds wrong in the rows that it reads, from any of its threads.
class RowErrors {
 public:
  explicit RowErrors(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  // `source`, whose rows are looked over for scales that are no numbers.
  MatrixSource Watched(MatrixSource source, const std::string& tensor) {
    if (!source.format.quantized()) return source;
    auto read_row = [this, tensor, blocks = source.format.blocks, cols = source.cols,
                     read = std::move(source.read_row)](int64_t row, void* to) {
      read(row, to);
      if (const int64_t bad = FindBadScale(blocks, to, cols); bad >= 0) Report(tensor, row, bad);
    };
    source.read_row = std::move(read_row);
    return source;
  }
  absl::Status status() {
    const std::lock_guard lock(mutex_);
    return status_;
  }

 private:
  void Report(const std::string& tensor, int64_t row, int64_t block) {
    const std::lock_guard lock(mutex_);
    status_.Update(absl::InvalidArgumentError(
        absl::StrCat(checkpoint_.tensors().at(tensor).file, ": tensor ", Quoted(tensor),
                     ": found a scale that is no finite number in row ", row, ", block ", block, ", allowed: finite")));
  }

  const Checkpoint& checkpoint_;
  std::mutex mutex_;
  absl::Status status_;
};

// A checkpoint's tensor, or part of it.
MatrixSource FromCheckpoint(const Checkpoint& checkpoint, const TensorPart& part) {
  if (part.encoding == TensorEncoding::kMxfp4) return FromMxfp4(checkpoint, part);
  const StoredTensor& stored = checkpoint.tensors().at(part.name).tensor;
  if (stored.fp8 != nullptr) return FromFp8(stored, part);
  if (!part.HasPlainRows()) return Gather(stored, part);
  return RowsOf(stored, part.rows, part.cols, [part](int64_t row) { return part.Index(row, 0); });
}

// A bijection of 64 bits that leaves no trace of the input's order (SplitMix64, Steele 2014).
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Elements [begin, begin + count) of a tensor of random numbers, uniform in (-bound, bound): four of each 64 bits.
void FillRandom(uint64_t key, float bound, int64_t begin, int64_t count, BFloat16* values) {
  constexpr int64_t kWords = 64;
  uint64_t words[kWords];
  int16_t numbers[kWords * 4];
  for (int64_t i = 0; i < count;) {
    const int64_t first = (begin + i) / 4 * 4, skipped = begin + i - first;
    for (int64_t w = 0; w < kWords; ++w) words[w] = Mix(key + static_cast<uint64_t>(first + 4 * w));
    std::memcpy(numbers, words, sizeof numbers);
    const int64_t here = std::min(count - i, kWords * 4 - skipped);
    for (int64_t j = 0; j < here; ++j)
      values[i + j] = ToBFloat16((static_cast<float>(numbers[skipped + j]) + 0.5f) * (bound / 32768.0f));
    i += here;
  }
}

// Random codes; the scale that brings their variance, 8.6, next to 1 / cols.
MatrixSource RandomMxfp4(uint64_t key, const TensorPart& part) {
  constexpr int64_t kBytes = InfoOf(BlockFormat::kMxfp4).bytes, kBias = 127;
  const auto scale = static_cast<uint8_t>(kBias - std::lround(std::log2(8.6 * static_cast<double>(part.cols)) / 2));
  const auto read_row = [=, groups = part.cols / kMxfp4Group](int64_t row, void* to) {
    auto* block = static_cast<uint8_t*>(to);
    for (int64_t g = 0; g < groups; ++g, block += kBytes) {
      const auto word = key + static_cast<uint64_t>(2 * (row * groups + g));
      const uint64_t codes[2] = {Mix(word), Mix(word + 1)};
      block[0] = scale;
      std::memcpy(block + 1, codes, sizeof codes);
    }
  };
  return {
      .format = {DType::kBFloat16, BlockFormat::kMxfp4}, .rows = part.rows, .cols = part.cols, .read_row = read_row};
}

MatrixSource RandomPart(uint64_t seed, const WeightSpec& spec, const TensorPart& part) {
  uint64_t key = Mix(seed);
  for (const char c : part.name) key = Mix(key ^ static_cast<uint8_t>(c));
  key += static_cast<uint64_t>(part.offset);
  if (part.encoding == TensorEncoding::kMxfp4) return RandomMxfp4(key, part);
  const float bound = std::sqrt(3.0f / static_cast<float>(part.cols));  // variance bound^2 / 3 = 1 / cols
  const bool is_vector = spec.vector != nullptr;
  const auto read_row = [=, fill = ToBFloat16(spec.fill), cols = part.cols](int64_t row, void* to) {
    auto* const values = static_cast<BFloat16*>(to);
    if (is_vector) {
      std::fill_n(values, cols, fill);
    } else {
      FillRandom(key, bound, row * cols, cols, values);
    }
  };
  return {.format = DType::kBFloat16, .rows = part.rows, .cols = part.cols, .read_row = read_row};
}

std::string ShapeText(absl::Span<const int64_t> shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

// The prefix of the checkpoint's names: the family's, or none in a checkpoint of the bare model.
absl::string_view PrefixOf(const ModelConfig& config, const Checkpoint& checkpoint) {
  const absl::string_view prefix = FindFamily(config.architecture)->names.prefix;
  const auto first = checkpoint.tensors().lower_bound(std::string(prefix));
  const bool is_used = first != checkpoint.tensors().end() && absl::StartsWith(first->first, prefix);
  return is_used ? prefix : "";
}

// The number of the layer that `name` belongs to; -1 for tensors of no layer.
int64_t LayerOf(absl::string_view name, absl::string_view layers) {
  if (!absl::ConsumePrefix(&name, layers)) return -1;
  int64_t layer = -1;
  return absl::SimpleAtoi(name.substr(0, name.find('.')), &layer) ? layer : -1;
}

// What checkpoints carry and nobody reads: the rotary frequencies of old files, GPT-2's causal masks, and the layers
// behind the last one (DeepSeek-V3's head that predicts two tokens ahead).
bool IsIgnored(const ModelConfig& config, absl::string_view prefix, absl::string_view name) {
  if (absl::EndsWith(name, "rotary_emb.inv_freq")) return true;
  if (config.architecture == "GPT2LMHeadModel")
    return absl::EndsWith(name, ".attn.bias") || absl::EndsWith(name, ".attn.masked_bias");
  if (config.architecture != "DeepseekV3ForCausalLM") return false;
  return LayerOf(name, absl::StrCat(prefix, FindFamily(config.architecture)->names.layers)) >= config.num_layers;
}

// A tied head that the file holds all the same: the embedding once more, or the model is not tied.
bool IsCopyOfEmbedding(const ModelConfig& config, const Checkpoint& checkpoint, absl::string_view prefix,
                       const std::string& name) {
  const TensorNames& names = FindFamily(config.architecture)->names;
  if (!config.tie_word_embeddings || name != absl::StrCat(names.head, ".weight")) return false;
  const StoredTensor& head = checkpoint.tensors().at(name).tensor;
  const StoredTensor& embedding = checkpoint.tensors().at(absl::StrCat(prefix, names.embedding, ".weight")).tensor;
  return head.dtype == embedding.dtype && head.shape == embedding.shape &&
         std::memcmp(head.data, embedding.data, head.bytes) == 0;
}

}  // namespace

absl::Status CheckTensors(const ModelConfig& config, const Checkpoint& checkpoint) {
  const absl::string_view prefix = PrefixOf(config, checkpoint);
  std::map<std::string, TensorSpec> expected;
  for (TensorSpec& spec : ExpectedTensors(config, prefix)) expected.emplace(spec.name, spec);
  for (const auto& [name, spec] : expected) {
    const std::vector<int64_t>& shape = spec.shape;
    const auto found = checkpoint.tensors().find(name);
    if (found == checkpoint.tensors().end()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", Quoted(name), ": found in no file of the model, needed with shape ", ShapeText(shape)));
    }
    if (found->second.tensor.shape != shape) {
      return absl::InvalidArgumentError(absl::StrCat(found->second.file, ": tensor ", Quoted(name), ": found shape ",
                                                     ShapeText(found->second.tensor.shape), ", allowed ",
                                                     ShapeText(shape), " (by config.json)"));
    }
    const uint64_t size = std::accumulate(shape.begin(), shape.end(), uint64_t{1}, std::multiplies<>());
    if (spec.is_bytes && found->second.tensor.bytes != size) {
      return absl::InvalidArgumentError(absl::StrCat(found->second.file, ": tensor ", Quoted(name), ": found ",
                                                     found->second.tensor.bytes, " bytes, allowed ", size,
                                                     " of dtype U8"));
    }
  }
  for (const auto& [name, entry] : checkpoint.tensors()) {
    if (expected.contains(name) || IsIgnored(config, prefix, name) ||
        IsCopyOfEmbedding(config, checkpoint, prefix, name)) {
      continue;
    }
    return absl::InvalidArgumentError(absl::StrCat(entry.file, ": tensor ", Quoted(name), ": unknown to ",
                                                   config.architecture,
                                                   config.tie_word_embeddings ? " with tied embeddings" : ""));
  }
  return absl::OkStatus();
}

absl::StatusOr<Weights> LoadWeights(const ModelConfig& config, WeightFormat format, const Checkpoint& checkpoint,
                                    Backend& backend, const LoadProgress& progress) {
  RowErrors errors(checkpoint);
  std::vector<absl::Span<const std::byte>> regions;
  std::map<std::string, size_t> region_of;
  for (const TensorSpec& spec : ExpectedTensors(config, PrefixOf(config, checkpoint))) {
    const StoredTensor& tensor = checkpoint.tensors().at(spec.name).tensor;
    region_of[spec.name] = regions.size();
    regions.push_back({tensor.data, tensor.bytes});
  }
  ReadAhead read_ahead(std::move(regions));
  const auto source = [&](const WeightSpec&, const TensorPart& part) {
    const std::string name = part.encoding == TensorEncoding::kMxfp4 ? part.name + "_scales" : part.name;
    read_ahead.Reached(region_of.at(name));
    return errors.Watched(FromCheckpoint(checkpoint, part), name);
  };
  absl::StatusOr<Weights> weights =
      BuildWeights(config, PrefixOf(config, checkpoint), format, source, backend, progress);
  if (const absl::Status status = errors.status(); !status.ok()) return status;
  return weights;
}

absl::StatusOr<Weights> DummyWeights(const ModelConfig& config, WeightFormat format, uint64_t seed, Backend& backend,
                                     const LoadProgress& progress) {
  const auto source = [&](const WeightSpec& spec, const TensorPart& part) { return RandomPart(seed, spec, part); };
  return BuildWeights(config, FindFamily(config.architecture)->names.prefix, format, source, backend, progress);
}

uint64_t WeightBytes(const ModelConfig& config, WeightFormat format, const Backend& backend,
                     const Checkpoint* checkpoint) {
  Weights unused;
  uint64_t sum = 0;
  for (const WeightSpec& spec : WeightSpecs(config, checkpoint ? PrefixOf(config, *checkpoint) : "", unused)) {
    if (spec.matrix == nullptr) {
      sum += spec.size() * sizeof(float);
      continue;
    }
    std::vector<MatrixSource> parts;
    for (const TensorPart& part : spec.parts) {
      parts.push_back({.format = format.dtype, .rows = part.rows, .cols = part.cols, .read_row = nullptr});
      if (spec.packing == Packing::kNumbers || !KeepsBlocks(format)) continue;
      if (part.encoding == TensorEncoding::kMxfp4) parts.back().format.blocks = BlockFormat::kMxfp4;
      if (checkpoint == nullptr) continue;
      const auto stored = checkpoint->tensors().find(part.name);
      if (stored != checkpoint->tensors().end()) parts.back().format = stored->second.tensor.format();
    }
    sum += backend.PackedBytes(parts, FormatFor(spec, format));
  }
  return sum;
}

}  // namespace quire
