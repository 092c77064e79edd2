#include "engine/activations.h"

#include <algorithm>
#include <utility>

namespace quire {
namespace {

// Lays tensors out one after another, each on a cache line of its own; from a null base it only counts.
class Layout {
 public:
  explicit Layout(void* base) : base_(static_cast<char*>(base)) {}

  Tensor Next(DType dtype, int64_t rows, int64_t cols) {
    return Tensor::Contiguous(Take(uint64_t(rows) * uint64_t(cols) * DTypeBytes(dtype)), dtype, rows, cols);
  }
  template <typename T>
  T* Array(int64_t count) {
    return static_cast<T*>(Take(uint64_t(count) * sizeof(T)));
  }
  uint64_t bytes() const { return bytes_; }

 private:
  void* Take(uint64_t bytes) {
    constexpr uint64_t kAlignment = 64;
    void* taken = base_ == nullptr ? nullptr : base_ + bytes_;
    bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return taken;
  }

  char* base_;
  uint64_t bytes_ = 0;
};

// The widest MLP that is computed as one: a dense layer's or the shared experts'.
int64_t MlpIntermediate(const ModelConfig& config) {
  int64_t widest = config.moe.has_value() ? config.moe->shared_intermediate_size : 0;
  for (const LayerConfig& layer : config.layers) {
    if (!layer.is_moe) widest = std::max<int64_t>(widest, config.intermediate_size);
  }
  return widest;
}

// Fills in the tensors over `base`; the bytes they take.
uint64_t Place(const ModelConfig& config, const ActivationShape& shape, void* base, ActivationTensors& a) {
  constexpr DType kFloat32 = DType::kFloat32;
  const int64_t rows = shape.max_rows, head_rows = shape.max_head_rows, hidden = config.hidden_size;
  const bool projects = config.embedding_size != config.hidden_size;
  const bool has_mlp_norm = config.block == BlockKind::kParallel && !config.shares_norm;
  Layout layout(base);
  a.residual = layout.Next(kFloat32, rows, hidden);
  a.normed = layout.Next(shape.dtype, rows, hidden);
  a.mlp_normed = layout.Next(shape.dtype, rows, has_mlp_norm ? hidden : 0);
  a.branch = layout.Next(kFloat32, rows, config.block == BlockKind::kSandwich ? hidden : 0);
  a.embedded = layout.Next(kFloat32, rows, projects ? config.embedding_size : 0);
  a.projected = layout.Next(shape.dtype, rows, projects ? config.embedding_size : 0);
  if (const auto& latent = config.latent) {
    a.q_a = layout.Next(kFloat32, rows, latent->q_rank);
    a.q_a_normed = layout.Next(shape.dtype, rows, latent->q_rank);
    a.q = layout.Next(kFloat32, rows, int64_t{config.q_heads} * (latent->nope_dim + latent->rope_dim));
    a.kv = layout.Next(kFloat32, rows, latent->CacheDim());
    a.q_latent = layout.Next(kFloat32, rows, int64_t{LatentHeads(config)} * latent->kv_rank);
    a.attended_latent = layout.Next(kFloat32, rows, int64_t{LatentHeads(config)} * latent->kv_rank);
  } else {
    a.qkv = layout.Next(kFloat32, rows, config.QkvCols());
  }
  a.attended = layout.Next(shape.dtype, rows, config.AttendedCols());
  const int64_t intermediate = MlpIntermediate(config);
  a.up = layout.Next(kFloat32, rows, (config.gated_mlp ? 2 : 1) * intermediate);
  a.activated = layout.Next(shape.dtype, rows, intermediate);
  if (const auto& moe = config.moe) {
    a.router = layout.Next(kFloat32, rows, moe->num_experts);
    a.experts = layout.Array<int32_t>(rows * moe->top_k);
    a.expert_weights = layout.Array<float>(rows * moe->top_k);
  }
  a.head_in = layout.Next(shape.dtype, head_rows, hidden);
  a.head_embedded = layout.Next(kFloat32, head_rows, projects ? config.embedding_size : 0);
  a.head_projected = layout.Next(shape.dtype, head_rows, projects ? config.embedding_size : 0);
  a.logits = layout.Next(kFloat32, head_rows, config.vocab_size);
  return layout.bytes();
}

}  // namespace

ActivationTensors ActivationTensors::Rows(int64_t count) const {
  ActivationTensors first = *this;
  for (Tensor* tensor :
       {&first.residual, &first.normed, &first.mlp_normed, &first.branch, &first.embedded, &first.projected, &first.qkv,
        &first.attended, &first.q_a, &first.q_a_normed, &first.q, &first.kv, &first.q_latent, &first.attended_latent,
        &first.up, &first.activated, &first.router}) {
    tensor->rows = count;
  }
  return first;
}

int32_t LatentHeads(const ModelConfig& config) {
  constexpr int32_t kMaxCols = 8192;  // of float32
  return std::clamp(kMaxCols / config.latent->kv_rank, 1, config.q_heads);
}

int64_t MaxActivationCols(const ModelConfig& config) {
  ActivationTensors a;
  Place(config, {.max_rows = 1, .max_head_rows = 0}, nullptr, a);
  int64_t widest = 0;
  for (const Tensor& tensor : {a.residual, a.embedded, a.qkv, a.attended, a.q_a, a.q, a.kv, a.q_latent, a.up, a.router})
    widest = std::max(widest, tensor.cols);
  if (config.moe.has_value()) widest = std::max<int64_t>(widest, 2 * int64_t{config.moe->intermediate_size});
  return widest;
}

uint64_t Activations::Bytes(const ModelConfig& config, const ActivationShape& shape) {
  ActivationTensors unused;
  return Place(config, shape, nullptr, unused);
}

absl::StatusOr<Activations> Activations::Create(const ModelConfig& config, const ActivationShape& shape,
                                                Backend& backend) {
  absl::StatusOr<Buffer> memory = backend.Allocate(Bytes(config, shape));
  if (!memory.ok()) return memory.status();
  Activations activations;
  Place(config, shape, memory->data(), activations);
  activations.memory = *std::move(memory);
  return activations;
}

}  // namespace quire
