#include "engine/model.h"

#include <cmath>
#include <utility>

#include "kernels/check.h"

namespace quire {
namespace {

const float* Floats(const Buffer& buffer) { return static_cast<const float*>(buffer.data()); }

}  // namespace

absl::StatusOr<Model> Model::Create(const ModelConfig& config, Weights weights, int32_t max_model_len,
                                    Backend* backend) {
  absl::StatusOr<RopeTable> rope = RopeTable::Create(config.rope_theta, config.head_dim, max_model_len, *backend);
  if (!rope.ok()) return rope.status();
  return Model(config, std::move(weights), *std::move(rope), backend);
}

Model::Model(const ModelConfig& config, Weights weights, RopeTable rope, Backend* backend)
    : config_(config), weights_(std::move(weights)), rope_(std::move(rope)), backend_(backend) {}

void Model::Forward(const ModelInput& input, const KvCache& cache, Activations& activations) const {
  const int64_t rows = input.num_rows;
  const int64_t q_cols = int64_t{config_.q_heads} * config_.head_dim,
                kv_cols = int64_t{config_.kv_heads} * config_.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
  const float epsilon = config_.rms_norm_eps;

  const Tensor x = activations.residual.Rows(0, rows), normed = activations.normed.Rows(0, rows);
  const Tensor qkv = activations.qkv.Rows(0, rows), attended = activations.attended.Rows(0, rows);
  const Tensor gate_up = activations.gate_up.Rows(0, rows), activated = activations.activated.Rows(0, rows);
  const Tensor q = qkv.Cols(0, q_cols), k = qkv.Cols(q_cols, kv_cols), v = qkv.Cols(q_cols + kv_cols, kv_cols);

  backend_->Embedding({.ids = input.ids, .table = &weights_.embedding, .x = x});
  for (int32_t l = 0; l < config_.num_layers; ++l) {
    const LayerWeights& w = weights_.layers[l];
    const PagedKv kv = cache.LayerView(l);
    const KvGroupInput& group = input.groups[cache.spec().GroupOf(l)];

    // x += o(attention(rope(qkv(norm(x)))))
    backend_->RmsNorm({.x = x, .weight = Floats(w.attention_norm), .epsilon = epsilon, .rows = nullptr, .y = normed});
    backend_->Linear({.x = normed, .weight = &w.qkv, .bias = nullptr, .accumulate = false, .y = qkv});
    backend_->RopeKvWrite({.q = q,
                           .k = k,
                           .v = v,
                           .positions = input.positions,
                           .slots = group.slots,
                           .cos = rope_.cos(),
                           .sin = rope_.sin(),
                           .kv = kv});
    backend_->PagedAttention({.q = q,
                              .chunks = group.chunks.data(),
                              .num_chunks = static_cast<int32_t>(group.chunks.size()),
                              .q_heads = config_.q_heads,
                              .scale = scale,
                              .kv = kv,
                              .out = attended});
    backend_->Linear({.x = attended, .weight = &w.o, .bias = nullptr, .accumulate = true, .y = x});

    // x += down(silu(gate(norm(x))) * up(norm(x)))
    backend_->RmsNorm({.x = x, .weight = Floats(w.mlp_norm), .epsilon = epsilon, .rows = nullptr, .y = normed});
    backend_->Linear({.x = normed, .weight = &w.gate_up, .bias = nullptr, .accumulate = false, .y = gate_up});
    backend_->GatedActivation({.gate_up = gate_up, .y = activated});
    backend_->Linear({.x = activated, .weight = &w.down, .bias = nullptr, .accumulate = true, .y = x});
  }
}

Tensor Model::Logits(absl::Span<const int32_t> rows, Activations& activations) const {
  const auto num_rows = static_cast<int64_t>(rows.size());
  Check(num_rows <= activations.logits.rows, "more head rows at once than planned");
  const Tensor head_in = activations.head_in.Rows(0, num_rows), logits = activations.logits.Rows(0, num_rows);
  backend_->RmsNorm({.x = activations.residual,
                     .weight = Floats(weights_.final_norm),
                     .epsilon = config_.rms_norm_eps,
                     .rows = rows.data(),
                     .y = head_in});
  backend_->Linear({.x = head_in, .weight = &weights_.head(), .bias = nullptr, .accumulate = false, .y = logits});
  return logits;
}

}  // namespace quire
