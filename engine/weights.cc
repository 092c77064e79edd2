#include "engine/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/json_text.h"
#include "engine/mapped_file.h"
#include "kernels/check.h"

namespace quire {
namespace {

std::string LayerName(int32_t layer, absl::string_view part) {
  return absl::StrCat("model.layers.", layer, ".", part, ".weight");
}

// Where tensors come from: a checkpoint or a random generator.
using TensorSource = std::function<MatrixSource(const TensorSpec& spec)>;

// Builds the weights of a model from a source, matrix by matrix.
class WeightLoader {
 public:
  WeightLoader(const ModelConfig& config, DType dtype, const TensorSource& source, Backend& backend)
      : dtype_(dtype), source_(source), backend_(backend) {
    for (TensorSpec& spec : ExpectedTensors(config)) specs_.emplace(spec.name, spec);
  }

  // The named matrices, stacked by rows, as one packed weight.
  LinearWeight Linear(const std::vector<std::string>& names) {
    if (!status_.ok()) return {};
    std::vector<MatrixSource> parts;
    for (const std::string& name : names) parts.push_back(source_(specs_.at(name)));
    absl::StatusOr<LinearWeight> weight = backend_.PackLinear(parts, dtype_);
    if (weight.ok()) return *std::move(weight);
    status_ = weight.status();
    return {};
  }

  // A vector in float32. Both backends' memory is the host's, so it is filled in place.
  Buffer Norm(const std::string& name) {
    if (!status_.ok()) return {};
    const MatrixSource from = source_(specs_.at(name));
    absl::StatusOr<Buffer> to = backend_.Allocate(from.cols * sizeof(float));
    if (!to.ok()) {
      status_ = to.status();
      return {};
    }
    std::vector<std::byte> stored(static_cast<size_t>(RowBytes(from.format, from.cols)));
    from.read_row(0, stored.data());
    for (int64_t i = 0; i < from.cols; ++i)
      static_cast<float*>(to->data())[i] = LoadFloat(stored.data(), from.format.dtype, i);
    return *std::move(to);
  }

  // The first error; what is built after it is empty.
  const absl::Status& status() const { return status_; }

 private:
  const DType dtype_;
  const TensorSource& source_;
  Backend& backend_;
  std::map<std::string, TensorSpec> specs_;
  absl::Status status_;
};

absl::StatusOr<Weights> BuildWeights(const ModelConfig& config, DType dtype, const TensorSource& source,
                                     Backend& backend) {
  WeightLoader load(config, dtype, source, backend);
  Weights weights;
  weights.embedding = load.Linear({"model.embed_tokens.weight"});
  for (int32_t l = 0; l < config.num_layers; ++l) {
    LayerWeights& layer = weights.layers.emplace_back();
    layer.attention_norm = load.Norm(LayerName(l, "input_layernorm"));
    layer.qkv = load.Linear(
        {LayerName(l, "self_attn.q_proj"), LayerName(l, "self_attn.k_proj"), LayerName(l, "self_attn.v_proj")});
    layer.o = load.Linear({LayerName(l, "self_attn.o_proj")});
    layer.mlp_norm = load.Norm(LayerName(l, "post_attention_layernorm"));
    layer.gate_up = load.Linear({LayerName(l, "mlp.gate_proj"), LayerName(l, "mlp.up_proj")});
    layer.down = load.Linear({LayerName(l, "mlp.down_proj")});
    if (!load.status().ok()) return load.status();
  }
  weights.final_norm = load.Norm("model.norm.weight");
  if (!config.tie_word_embeddings) weights.lm_head = load.Linear({"lm_head.weight"});
  if (!load.status().ok()) return load.status();
  return weights;
}

// Bytes of a mapped file that may be in memory behind the row that is read: enough to give back many pages at a time.
constexpr int64_t kReleaseBytes = int64_t{4} << 20;

// A checkpoint's tensor, whose pages are given back as it is read: a model must not be in memory twice.
MatrixSource FromCheckpoint(const Checkpoint& checkpoint, const TensorSpec& spec) {
  const StoredTensor& stored = checkpoint.tensors().at(spec.name).tensor;
  const int64_t row_bytes = RowBytes(stored.dtype, spec.cols), end = row_bytes * spec.rows;
  const auto read_row = [data = stored.data, row_bytes, end](int64_t row, void* to) {
    const int64_t at = row * row_bytes, next = at + row_bytes;
    std::memcpy(to, data + at, static_cast<size_t>(row_bytes));
    const int64_t begin = at / kReleaseBytes * kReleaseBytes;
    if (next == end || next >= begin + kReleaseBytes)
      ReleasePages(data + begin, data + (next == end ? end : next / kReleaseBytes * kReleaseBytes));
  };
  return {.format = stored.dtype, .rows = spec.rows, .cols = spec.cols, .read_row = read_row};
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

MatrixSource RandomTensor(uint64_t seed, const TensorSpec& spec) {
  uint64_t key = Mix(seed);
  for (const char c : spec.name) key = Mix(key ^ static_cast<uint8_t>(c));
  const float bound = std::sqrt(3.0f / static_cast<float>(spec.cols));  // variance bound^2 / 3 = 1 / cols
  const auto read_row = [=, cols = spec.cols, is_vector = spec.is_vector](int64_t row, void* to) {
    auto* const values = static_cast<BFloat16*>(to);
    if (is_vector) {
      std::fill_n(values, cols, ToBFloat16(1.0f));
    } else {
      FillRandom(key, bound, row * cols, cols, values);
    }
  };
  return {.format = DType::kBFloat16, .rows = spec.rows, .cols = spec.cols, .read_row = read_row};
}

std::string ShapeText(absl::Span<const int64_t> shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

}  // namespace

std::vector<TensorSpec> ExpectedTensors(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size, intermediate = config.intermediate_size, vocab = config.vocab_size;
  const int64_t q = int64_t{config.q_heads} * config.head_dim, kv = int64_t{config.kv_heads} * config.head_dim;
  std::vector<TensorSpec> specs = {{"model.embed_tokens.weight", vocab, hidden},
                                   {"model.norm.weight", 1, hidden, true}};
  for (int32_t l = 0; l < config.num_layers; ++l) {
    specs.push_back({LayerName(l, "input_layernorm"), 1, hidden, true});
    specs.push_back({LayerName(l, "self_attn.q_proj"), q, hidden});
    specs.push_back({LayerName(l, "self_attn.k_proj"), kv, hidden});
    specs.push_back({LayerName(l, "self_attn.v_proj"), kv, hidden});
    specs.push_back({LayerName(l, "self_attn.o_proj"), hidden, q});
    specs.push_back({LayerName(l, "post_attention_layernorm"), 1, hidden, true});
    specs.push_back({LayerName(l, "mlp.gate_proj"), intermediate, hidden});
    specs.push_back({LayerName(l, "mlp.up_proj"), intermediate, hidden});
    specs.push_back({LayerName(l, "mlp.down_proj"), hidden, intermediate});
  }
  if (!config.tie_word_embeddings) specs.push_back({"lm_head.weight", vocab, hidden});
  return specs;
}

absl::Status CheckTensors(const ModelConfig& config, const Checkpoint& checkpoint) {
  std::map<std::string, TensorSpec> expected;
  for (TensorSpec& spec : ExpectedTensors(config)) expected.emplace(spec.name, spec);
  for (const auto& [name, spec] : expected) {
    const std::vector<int64_t> shape = spec.is_vector ? std::vector{spec.cols} : std::vector{spec.rows, spec.cols};
    const auto found = checkpoint.tensors().find(name);
    if (found == checkpoint.tensors().end()) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(name),
                                                     ": found in no safetensors file of the model, needed with shape ",
                                                     ShapeText(shape)));
    }
    if (found->second.tensor.shape != shape) {
      return absl::InvalidArgumentError(absl::StrCat(found->second.file, ": tensor ", Quoted(name), ": found shape ",
                                                     ShapeText(found->second.tensor.shape), ", allowed ",
                                                     ShapeText(shape), " (by config.json)"));
    }
  }
  for (const auto& [name, entry] : checkpoint.tensors()) {
    if (!expected.contains(name) && !absl::EndsWith(name, "rotary_emb.inv_freq")) {
      return absl::InvalidArgumentError(absl::StrCat(entry.file, ": tensor ", Quoted(name), ": unknown to ",
                                                     config.architecture,
                                                     config.tie_word_embeddings ? " with tied embeddings" : ""));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Weights> LoadWeights(const ModelConfig& config, DType dtype, const Checkpoint& checkpoint,
                                    Backend& backend) {
  return BuildWeights(
      config, dtype, [&](const TensorSpec& spec) { return FromCheckpoint(checkpoint, spec); }, backend);
}

absl::StatusOr<Weights> DummyWeights(const ModelConfig& config, DType dtype, uint64_t seed, Backend& backend) {
  return BuildWeights(
      config, dtype, [&](const TensorSpec& spec) { return RandomTensor(seed, spec); }, backend);
}

uint64_t WeightBytes(const ModelConfig& config, DType dtype, const Backend& backend) {
  const int64_t hidden = config.hidden_size, intermediate = config.intermediate_size;
  const int64_t q = int64_t{config.q_heads} * config.head_dim, kv = int64_t{config.kv_heads} * config.head_dim;
  const uint64_t norm = hidden * sizeof(float);
  const uint64_t layer = norm + backend.PackedBytes(q + 2 * kv, hidden, dtype) + backend.PackedBytes(hidden, q, dtype) +
                         norm + backend.PackedBytes(2 * intermediate, hidden, dtype) +
                         backend.PackedBytes(hidden, intermediate, dtype);
  const uint64_t embedding = backend.PackedBytes(config.vocab_size, hidden, dtype);
  return (config.tie_word_embeddings ? 1 : 2) * embedding + config.num_layers * layer + norm;
}

}  // namespace quire
