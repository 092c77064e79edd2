#include "engine/weight_specs.h"

#include <functional>
#include <numeric>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/config/registry.h"
#include "engine/mxfp4.h"

namespace quire {
namespace {

// A whole matrix: [rows, cols] in the file, or [cols, rows].
TensorPart Matrix(std::string name, int64_t rows, int64_t cols, bool is_transposed = false) {
  TensorPart part{.name = std::move(name), .shape = {rows, cols}, .rows = rows, .cols = cols, .run = rows};
  part.row_stride = cols;
  if (is_transposed) {
    part.shape = {cols, rows};
    part.row_stride = 1;
    part.col_stride = rows;
  }
  return part;
}

TensorPart Vector(std::string name, int64_t size) {
  return {.name = std::move(name), .shape = {size}, .rows = 1, .cols = size, .run = 1};
}

// Matrix `index` of a stack of shape [count, rows, cols].
TensorPart Slice(std::string name, std::vector<int64_t> shape, int64_t index) {
  TensorPart part = Matrix(std::move(name), shape[1], shape[2]);
  part.offset = index * shape[1] * shape[2];
  part.shape = std::move(shape);
  return part;
}

// Every `step` rows of a tensor the `run` rows from `begin` on, `rows` in all.
TensorPart Rows(std::string name, std::vector<int64_t> shape, int64_t begin, int64_t rows, int64_t run, int64_t step) {
  const int64_t cols = shape.size() == 2 ? shape[1] : 1;
  return {.name = std::move(name),
          .shape = std::move(shape),
          .rows = rows,
          .cols = cols,
          .offset = begin * cols,
          .run = run,
          .run_stride = step * cols,
          .row_stride = cols};
}

class Builder {
 public:
  Builder(const ModelConfig& config, absl::string_view prefix)
      : config_(config), names_(FindFamily(config.architecture)->names), prefix_(prefix) {}

  std::vector<WeightSpec> Build(Weights& weights);

 private:
  void AddMatrix(LinearWeight& to, std::vector<TensorPart> parts, Packing packing = Packing::kAsAsked) {
    specs_.push_back({.matrix = &to, .parts = std::move(parts), .packing = packing});
  }
  void AddVector(VectorWeight& to, std::vector<TensorPart> parts) {
    specs_.push_back({.vector = &to, .parts = std::move(parts)});
  }
  // The matrices `names` [rows[i], cols] stacked, and their biases.
  void AddProjection(Projection& to, const std::vector<std::string>& names, const std::vector<int64_t>& rows,
                     int64_t cols, bool has_bias) {
    std::vector<TensorPart> matrices, biases;
    for (size_t i = 0; i < names.size(); ++i) {
      matrices.push_back(Matrix(names[i] + ".weight", rows[i], cols, names_.is_transposed && !config_.plain_layout));
      biases.push_back(Vector(names[i] + ".bias", rows[i]));
    }
    AddMatrix(to.weight, std::move(matrices));
    if (has_bias) AddVector(to.bias, std::move(biases));
  }
  void AddNorm(NormWeights& to, const std::string& name, int64_t size, NormKind kind) {
    specs_.push_back({.vector = &to.weight,
                      .parts = {Vector(name + ".weight", size)},
                      .fill = config_.norm_adds_one ? 0.0f : 1.0f,
                      .addend = config_.norm_adds_one ? 1.0f : 0.0f});
    if (kind == NormKind::kLayer) AddVector(to.bias, {Vector(name + ".bias", size)});
  }

  void AddNorms(LayerWeights& layer);
  void AddAttention(LayerWeights& layer);
  void AddQkv(LayerWeights& layer);
  void AddLatent(LatentWeights& latent);
  void AddMlp(MlpWeights& mlp, const std::string& up, const std::string& gate, const std::string& down,
              int64_t intermediate);
  void AddMoe(MoeWeights& moe);
  void AddExpert(int32_t expert, MoeWeights& moe);
  void AddExpertBiases(MoeWeights& moe);

  std::string Model(const char* name) const { return absl::StrCat(prefix_, name); }
  std::string Layer(const char* name) const { return absl::StrCat(prefix_, names_.layers, layer_, ".", name); }

  const ModelConfig& config_;
  const TensorNames& names_;
  const std::string prefix_;
  int32_t layer_ = 0;  // the one being built
  std::vector<WeightSpec> specs_;
};

std::vector<WeightSpec> Builder::Build(Weights& weights) {
  const int64_t hidden = config_.hidden_size, embedding = config_.embedding_size, vocab = config_.vocab_size;
  AddMatrix(weights.embedding, {Matrix(Model(names_.embedding) + ".weight", vocab, embedding)}, Packing::kVocabulary);
  if (config_.num_learned_positions > 0) {
    const int64_t rows = config_.num_learned_positions, offset = config_.learned_position_offset;
    AddMatrix(weights.positions,
              {Rows(Model(names_.positions) + ".weight", {rows, hidden}, offset, rows - offset, rows - offset,
                    rows - offset)},
              Packing::kNumbers);
  }
  if (embedding != hidden) {
    AddProjection(weights.project_in, {Model(names_.project_in)}, {hidden}, embedding, false);
    AddProjection(weights.project_out, {Model(names_.project_out)}, {embedding}, hidden, false);
  }
  weights.layers.resize(config_.num_layers);
  for (layer_ = 0; layer_ < config_.num_layers; ++layer_) {
    LayerWeights& layer = weights.layers[layer_];
    AddNorms(layer);
    AddAttention(layer);
    if (config_.layers[layer_].is_moe) {
      AddMoe(layer.moe);
    } else {
      const bool is_fused = config_.fused_gate_up;
      AddMlp(layer.mlp, Layer(is_fused ? names_.gate_up : names_.up), is_fused ? "" : Layer(names_.gate),
             Layer(names_.down), config_.intermediate_size);
    }
  }
  if (config_.final_norm) AddNorm(weights.final_norm, Model(names_.final_norm), hidden, config_.norm);
  if (!config_.tie_word_embeddings)
    AddMatrix(weights.lm_head, {Matrix(std::string(names_.head) + ".weight", vocab, embedding)}, Packing::kVocabulary);
  return std::move(specs_);
}

void Builder::AddNorms(LayerWeights& layer) {
  const int64_t hidden = config_.hidden_size;
  const bool has_two = config_.block == BlockKind::kParallel && !config_.shares_norm;
  AddNorm(layer.attention_norm, Layer(has_two ? names_.parallel_attention_norm : names_.attention_norm), hidden,
          config_.norm);
  if (!config_.shares_norm)
    AddNorm(layer.mlp_norm, Layer(has_two ? names_.parallel_mlp_norm : names_.mlp_norm), hidden, config_.norm);
  if (config_.block != BlockKind::kSandwich) return;
  AddNorm(layer.post_attention_norm, Layer(names_.post_attention_norm), hidden, config_.norm);
  AddNorm(layer.post_mlp_norm, Layer(names_.post_mlp_norm), hidden, config_.norm);
}

void Builder::AddAttention(LayerWeights& layer) {
  if (config_.latent.has_value()) {
    AddLatent(layer.latent);
  } else {
    AddQkv(layer);
  }
  if (config_.qk_norm) {
    AddNorm(layer.q_norm, Layer(names_.q_norm), config_.head_dim, NormKind::kRms);
    AddNorm(layer.k_norm, Layer(names_.k_norm), config_.head_dim, NormKind::kRms);
  }
  if (config_.has_sinks) AddVector(layer.sinks, {Vector(Layer(names_.sinks), config_.q_heads)});
  AddProjection(layer.o, {Layer(names_.o)}, {config_.hidden_size}, config_.AttendedCols(), config_.o_bias);
}

void Builder::AddQkv(LayerWeights& layer) {
  const int64_t dim = config_.head_dim, q = config_.q_heads * dim, kv = config_.kv_heads * dim;
  const int64_t hidden = config_.hidden_size;
  switch (config_.qkv_layout) {
    case QkvLayout::kSeparate:
      return AddProjection(layer.qkv, {Layer(names_.q), Layer(names_.k), Layer(names_.v)}, {q, kv, kv}, hidden,
                           config_.qkv_bias);
    case QkvLayout::kFused:
      return AddProjection(layer.qkv, {Layer(names_.qkv)}, {q + 2 * kv}, hidden, config_.qkv_bias);
    case QkvLayout::kByKvHead:
      break;
  }
  const int64_t group = config_.q_heads / config_.kv_heads, step = (group + 2) * dim;
  const auto parts = [&](const std::string& name, const std::vector<int64_t>& shape) {
    return std::vector<TensorPart>{Rows(name, shape, 0, q, group * dim, step),
                                   Rows(name, shape, group * dim, kv, dim, step),
                                   Rows(name, shape, (group + 1) * dim, kv, dim, step)};
  };
  AddMatrix(layer.qkv.weight, parts(Layer(names_.qkv) + ".weight", {q + 2 * kv, hidden}));
  if (config_.qkv_bias) AddVector(layer.qkv.bias, parts(Layer(names_.qkv) + ".bias", {q + 2 * kv}));
}

void Builder::AddLatent(LatentWeights& latent) {
  const LatentConfig& c = *config_.latent;
  const int64_t heads = config_.q_heads, hidden = config_.hidden_size, q = heads * (c.nope_dim + c.rope_dim);
  if (c.q_rank > 0) {
    AddProjection(latent.q_a, {Layer(names_.q_a)}, {c.q_rank}, hidden, false);
    AddNorm(latent.q_a_norm, Layer(names_.q_a_norm), c.q_rank, NormKind::kRms);
  }
  AddProjection(latent.q, {Layer(c.q_rank > 0 ? names_.q_b : names_.q)}, {q}, c.q_rank > 0 ? c.q_rank : hidden, false);
  AddProjection(latent.kv_a, {Layer(names_.kv_a)}, {c.kv_rank + c.rope_dim}, hidden, false);
  AddNorm(latent.kv_a_norm, Layer(names_.kv_a_norm), c.kv_rank, NormKind::kRms);
  latent.k_up.resize(heads);
  latent.v_up.resize(heads);
  const int64_t step = c.nope_dim + c.v_dim;  // rows of a head: W_uk, W_uv
  for (int64_t head = 0; head < heads; ++head) {
    TensorPart k_up, v_up;
    if (c.split_kv_b) {
      k_up = Slice(Layer(names_.k_b) + ".weight", {heads, c.kv_rank, c.nope_dim}, head);
      v_up = Slice(Layer(names_.v_b) + ".weight", {heads, c.v_dim, c.kv_rank}, head);
    } else {
      k_up = v_up = Matrix(Layer(names_.kv_b) + ".weight", heads * step, c.kv_rank);
      k_up.offset = head * step * c.kv_rank;
      k_up.rows = k_up.run = c.kv_rank;
      k_up.cols = c.nope_dim;
      std::swap(k_up.row_stride, k_up.col_stride);
      v_up.offset = (head * step + c.nope_dim) * c.kv_rank;
      v_up.rows = v_up.run = c.v_dim;
    }
    AddMatrix(latent.k_up[head], {k_up}, Packing::kNumbers);
    AddMatrix(latent.v_up[head], {v_up}, Packing::kNumbers);
  }
}

// `up` alone where the MLP has no gate or `up` is both.
void Builder::AddMlp(MlpWeights& mlp, const std::string& up, const std::string& gate, const std::string& down,
                     int64_t intermediate) {
  const int64_t hidden = config_.hidden_size;
  if (!config_.gated_mlp) {
    AddProjection(mlp.up, {up}, {intermediate}, hidden, config_.mlp_bias);
  } else if (gate.empty()) {
    AddProjection(mlp.up, {up}, {2 * intermediate}, hidden, config_.mlp_bias);
  } else {
    AddProjection(mlp.up, {gate, up}, {intermediate, intermediate}, hidden, config_.mlp_bias);
  }
  AddProjection(mlp.down, {down}, {hidden}, intermediate, config_.mlp_bias);
}

void Builder::AddMoe(MoeWeights& moe) {
  const MoeConfig& c = *config_.moe;
  const size_t router = specs_.size();
  AddProjection(moe.router, {Layer(names_.router)}, {c.num_experts}, config_.hidden_size, c.router_bias);
  specs_[router].packing = Packing::kNumbers;  // a wrong choice of experts costs more than its few bytes
  if (c.correction_bias) AddVector(moe.correction_bias, {Vector(Layer(names_.correction_bias), c.num_experts)});
  moe.gate_up.resize(c.num_experts);
  moe.down.resize(c.num_experts);
  for (int32_t e = 0; e < c.num_experts; ++e) AddExpert(e, moe);
  if (c.expert_bias) AddExpertBiases(moe);
  if (c.shared_intermediate_size > 0) {
    const std::string shared = Layer(names_.shared) + ".";
    AddMlp(moe.shared, shared + names_.expert_up, shared + names_.expert_gate, shared + names_.expert_down,
           c.shared_intermediate_size);
  }
}

void Builder::AddExpert(int32_t expert, MoeWeights& moe) {
  const MoeConfig& c = *config_.moe;
  const int64_t hidden = config_.hidden_size, inner = c.intermediate_size;
  if (c.layout == ExpertLayout::kSeparate) {
    const std::string name = absl::StrCat(Layer(names_.experts), ".", expert, ".");
    AddMatrix(moe.gate_up[expert], {Matrix(name + names_.expert_gate + ".weight", inner, hidden),
                                    Matrix(name + names_.expert_up + ".weight", inner, hidden)});
    return AddMatrix(moe.down[expert], {Matrix(name + names_.expert_down + ".weight", hidden, inner)});
  }
  // Slices of [experts, in, out], or of [experts, out, in]; rows of gate and up alternate.
  const bool is_mxfp4 = c.layout == ExpertLayout::kStackedMxfp4;
  const auto slice = [&](const char* name, int64_t rows, int64_t cols) {
    TensorPart part = Matrix(absl::StrCat(Layer(names_.experts), ".", name), rows, cols, !is_mxfp4);
    part.shape.insert(part.shape.begin(), c.num_experts);
    part.offset = expert * rows * cols;
    if (is_mxfp4) part.encoding = TensorEncoding::kMxfp4;
    return part;
  };
  TensorPart gate = slice(names_.expert_gate_up, 2 * inner, hidden);
  const int64_t row = gate.row_stride;
  gate.rows = gate.run = inner;
  gate.row_stride = 2 * row;
  TensorPart up = gate;
  up.offset += row;
  AddMatrix(moe.gate_up[expert], {gate, up});
  AddMatrix(moe.down[expert], {slice(names_.expert_down, hidden, inner)});
}

// Biases of stacked experts: [experts, 2 * intermediate] with gate and up alternating, and [experts, hidden]. Else
// those of gate and up are apart.
void Builder::AddExpertBiases(MoeWeights& moe) {
  const MoeConfig& c = *config_.moe;
  const int64_t experts = c.num_experts, inner = c.intermediate_size;
  const std::string name = Layer(names_.experts) + ".";
  if (c.layout == ExpertLayout::kSeparate) {
    std::vector<TensorPart> gate_up;
    for (int64_t e = 0; e < experts; ++e) {
      for (const char* each : {names_.expert_gate, names_.expert_up})
        gate_up.push_back(Rows(absl::StrCat(name, each, ".bias"), {experts, inner}, e, 1, 1, 1));
    }
    AddVector(moe.gate_up_bias, std::move(gate_up));
    return AddVector(moe.down_bias,
                     {Matrix(absl::StrCat(name, names_.expert_down, ".bias"), experts, config_.hidden_size)});
  }
  AddVector(moe.gate_up_bias, {{.name = absl::StrCat(name, names_.expert_gate_up, "_bias"),
                                .shape = {experts, 2 * inner},
                                .rows = 2 * experts,
                                .cols = inner,
                                .run = 2,
                                .run_stride = 2 * inner,
                                .row_stride = 1,
                                .col_stride = 2}});
  AddVector(moe.down_bias, {Matrix(absl::StrCat(name, names_.expert_down, "_bias"), experts, config_.hidden_size)});
}

uint64_t Product(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), uint64_t{1}, std::multiplies<>());
}

}  // namespace

int64_t WeightSpec::rows() const {
  int64_t sum = 0;
  for (const TensorPart& part : parts) sum += part.rows;
  return sum;
}

int64_t WeightSpec::size() const {
  int64_t sum = 0;
  for (const TensorPart& part : parts) sum += part.rows * part.cols;
  return sum;
}

std::vector<WeightSpec> WeightSpecs(const ModelConfig& config, absl::string_view prefix, Weights& weights) {
  return Builder(config, prefix).Build(weights);
}

std::vector<TensorSpec> ExpectedTensors(const ModelConfig& config) {
  return ExpectedTensors(config, FindFamily(config.architecture)->names.prefix);
}

std::vector<TensorSpec> ExpectedTensors(const ModelConfig& config, absl::string_view prefix) {
  Weights unused;
  std::vector<TensorSpec> tensors;
  std::set<std::string> seen;
  for (const WeightSpec& spec : WeightSpecs(config, prefix, unused)) {
    for (const TensorPart& part : spec.parts) {
      if (!seen.insert(part.name).second) continue;
      if (part.encoding == TensorEncoding::kPlain) {
        tensors.push_back({part.name, part.shape, Product(part.shape)});
        continue;
      }
      std::vector<int64_t> scales = part.shape;
      scales.back() /= kMxfp4Group;
      std::vector<int64_t> blocks = scales;
      blocks.push_back(kMxfp4Group / 2);
      tensors.push_back({part.name + "_blocks", blocks, Product(part.shape), /*is_bytes=*/true});
      tensors.push_back({part.name + "_scales", scales, 0, /*is_bytes=*/true});
    }
  }
  return tensors;
}

}  // namespace quire
