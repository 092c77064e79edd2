#include "engine/activations.h"

#include <utility>

namespace quire {
namespace {

// Lays tensors out one after another, each on a cache line of its own; from a null base it only counts.
class Layout {
 public:
  explicit Layout(void* base) : base_(static_cast<char*>(base)) {}

  Tensor Next(DType dtype, int64_t rows, int64_t cols) {
    constexpr uint64_t kAlignment = 64;
    const Tensor tensor = Tensor::Contiguous(base_ == nullptr ? nullptr : base_ + bytes_, dtype, rows, cols);
    bytes_ += (uint64_t(rows) * uint64_t(cols) * DTypeBytes(dtype) + kAlignment - 1) / kAlignment * kAlignment;
    return tensor;
  }
  uint64_t bytes() const { return bytes_; }

 private:
  char* base_;
  uint64_t bytes_ = 0;
};

// Fills in the tensors over `base`; the bytes they take.
uint64_t Place(const ModelConfig& config, const ActivationShape& shape, void* base, Activations& a) {
  const int64_t q = int64_t{config.q_heads} * config.head_dim, kv = int64_t{config.kv_heads} * config.head_dim;
  Layout layout(base);
  a.residual = layout.Next(DType::kFloat32, shape.max_rows, config.hidden_size);
  a.normed = layout.Next(shape.dtype, shape.max_rows, config.hidden_size);
  a.qkv = layout.Next(DType::kFloat32, shape.max_rows, q + 2 * kv);
  a.attended = layout.Next(shape.dtype, shape.max_rows, q);
  a.gate_up = layout.Next(DType::kFloat32, shape.max_rows, 2 * int64_t{config.intermediate_size});
  a.activated = layout.Next(shape.dtype, shape.max_rows, config.intermediate_size);
  a.head_in = layout.Next(shape.dtype, shape.max_head_rows, config.hidden_size);
  a.logits = layout.Next(DType::kFloat32, shape.max_head_rows, config.vocab_size);
  return layout.bytes();
}

}  // namespace

uint64_t Activations::Bytes(const ModelConfig& config, const ActivationShape& shape) {
  Activations unused;
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
