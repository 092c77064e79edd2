#include "engine/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/json_text.h"
#include "kernels/check.h"

namespace quire {
namespace {

std::string LayerName(int32_t layer, absl::string_view part) {
  return absl::StrCat("model.layers.", layer, ".", part, ".weight");
}

// A tensor in host memory: a view of a mapped file, or of memory of its own.
struct HostTensor {
  Tensor tensor;
  std::unique_ptr<std::byte[]> owned;
};

// Where tensors come from: a checkpoint or a random generator.
using TensorSource = std::function<HostTensor(const TensorSpec& spec)>;

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
    std::vector<HostTensor> parts;
    std::vector<Tensor> views;
    for (const std::string& name : names) {
      parts.push_back(source_(specs_.at(name)));
      views.push_back(parts.back().tensor);
    }
    absl::StatusOr<LinearWeight> weight = backend_.PackLinear(views, dtype_);
    if (weight.ok()) return *std::move(weight);
    status_ = weight.status();
    return {};
  }

  // A vector in float32. Both backends' memory is the host's, so it is filled in place.
  Buffer Norm(const std::string& name) {
    if (!status_.ok()) return {};
    const HostTensor from = source_(specs_.at(name));
    absl::StatusOr<Buffer> to = backend_.Allocate(from.tensor.cols * sizeof(float));
    if (!to.ok()) {
      status_ = to.status();
      return {};
    }
    for (int64_t i = 0; i < from.tensor.cols; ++i) {
      static_cast<float*>(to->data())[i] = LoadFloat(from.tensor.data, from.tensor.dtype, i);
    }
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

// A checkpoint's tensor where it lies, or a copy where its address does not suit its type.
HostTensor FromCheckpoint(const Checkpoint& checkpoint, const TensorSpec& spec) {
  const StoredTensor& stored = checkpoint.tensors().at(spec.name).tensor;
  HostTensor host;
  const void* data = stored.data;
  if (reinterpret_cast<uintptr_t>(data) % DTypeBytes(stored.dtype) != 0) {
    host.owned = std::make_unique_for_overwrite<std::byte[]>(stored.bytes);
    std::memcpy(host.owned.get(), data, stored.bytes);
    data = host.owned.get();
  }
  // Tensor is a view for reading and writing alike; PackLinear only reads.
  host.tensor = Tensor::Contiguous(const_cast<void*>(data), stored.dtype, spec.rows, spec.cols);
  return host;
}

// A bijection of 64 bits that leaves no trace of the input's order (SplitMix64, Steele 2014).
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Elements [begin, end) of a tensor of random numbers, uniform in (-bound, bound): four of each 64 bits. REQUIRES:
// begin % 4 == 0.
void FillRandom(uint64_t key, float bound, int64_t begin, int64_t end, BFloat16* values) {
  for (int64_t i = begin; i < end; i += 4) {
    const uint64_t bits = Mix(key + static_cast<uint64_t>(i));
    for (int64_t j = i; j < std::min(i + 4, end); ++j) {
      const auto number = static_cast<int16_t>(bits >> (16 * (j - i)));
      values[j] = ToBFloat16((static_cast<float>(number) + 0.5f) * (bound / 32768.0f));
    }
  }
}

HostTensor RandomTensor(uint64_t seed, const TensorSpec& spec) {
  const int64_t count = spec.rows * spec.cols;
  HostTensor host;
  host.owned = std::make_unique_for_overwrite<std::byte[]>(count * sizeof(BFloat16));
  auto* values = reinterpret_cast<BFloat16*>(host.owned.get());
  host.tensor = Tensor::Contiguous(values, DType::kBFloat16, spec.rows, spec.cols);
  if (spec.is_vector) {
    std::fill_n(values, count, ToBFloat16(1.0f));
    return host;
  }
  uint64_t key = Mix(seed);
  for (const char c : spec.name) key = Mix(key ^ static_cast<uint8_t>(c));
  const float bound = std::sqrt(3.0f / static_cast<float>(spec.cols));  // variance bound^2 / 3 = 1 / cols

  constexpr int64_t kChunk = int64_t{1} << 22;  // elements; a few milliseconds of work
  const int64_t num_chunks = (count + kChunk - 1) / kChunk;
  const int64_t num_threads = std::clamp<int64_t>(std::thread::hardware_concurrency(), 1, num_chunks);
  const auto fill_every = [&](int64_t first) {
    for (int64_t c = first; c < num_chunks; c += num_threads)
      FillRandom(key, bound, c * kChunk, std::min(count, (c + 1) * kChunk), values);
  };
  std::vector<std::thread> threads;
  for (int64_t t = 1; t < num_threads; ++t) threads.emplace_back(fill_every, t);
  fill_every(0);
  for (std::thread& thread : threads) thread.join();
  return host;
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
