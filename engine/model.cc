#include "engine/model.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/check.h"

namespace quire {
namespace {

// Of the norms inside latent attention, whatever the config says of the others.
constexpr float kLatentEpsilon = 1e-6f;

// ALiBi's slopes (Press 2022, §3): a geometric sequence of 2^(-8 / n) for n heads; where n is no power of two, that of
// the next lower one, then every other slope of the next higher one. Rounded as Falcon's are.
float AlibiSlope(int32_t head, int32_t num_heads) {
  int32_t power = 1;
  while (2 * power <= num_heads) power *= 2;
  const bool is_extra = head >= power;
  const int32_t heads = is_extra ? 2 * power : power, exponent = is_extra ? 2 * (head - power) + 1 : head + 1;
  const auto base = static_cast<float>(std::exp2(-8.0 / heads));
  return ToFloat(ToBFloat16(std::pow(base, static_cast<float>(exponent))));
}

}  // namespace

absl::StatusOr<Model> Model::Create(const ModelConfig& config, Weights weights, int32_t max_model_len,
                                    Backend* backend) {
  Model model(config, std::move(weights), backend);
  for (const RopeConfig& rope : config.ropes) {
    absl::StatusOr<RopeTable> table = RopeTable::Create(rope, max_model_len, *backend);
    if (!table.ok()) return table.status();
    model.ropes_.push_back(*std::move(table));
  }
  if (config.has_alibi) {
    absl::StatusOr<Buffer> slopes = backend->Allocate(config.q_heads * sizeof(float));
    if (!slopes.ok()) return slopes.status();
    std::vector<float> host(config.q_heads);
    for (int32_t h = 0; h < config.q_heads; ++h) host[h] = AlibiSlope(h, config.q_heads);
    const absl::Status status = backend->CopyToDevice(slopes->data(), host.data(), host.size() * sizeof(float));
    if (!status.ok()) return status;
    model.alibi_slopes_.buffer = *std::move(slopes);
  }
  return model;
}

Model::Model(const ModelConfig& config, Weights weights, Backend* backend)
    : config_(config), weights_(std::move(weights)), backend_(backend) {
  // Gemma multiplies by the scale as the model's type has it.
  StoreFloat(&config_.embedding_scale, weights_.embedding.dtype, 0, config.embedding_scale);
  config_.embedding_scale = LoadFloat(&config_.embedding_scale, weights_.embedding.dtype, 0);
}

uint64_t Model::TableBytes(const ModelConfig& config, int32_t max_model_len) {
  uint64_t bytes = config.has_alibi ? config.q_heads * sizeof(float) : 0;
  for (const RopeConfig& rope : config.ropes) bytes += RopeTable::Bytes(rope, max_model_len);
  return bytes;
}

void Model::Forward(const ModelInput& input, const KvCache& cache, Activations& activations) const {
  ActivationTensors a = activations.Rows(input.num_rows);
  const Tensor& x = a.residual;
  const bool is_post_norm = config_.block == BlockKind::kPostNorm, is_parallel = config_.block == BlockKind::kParallel;
  Embed(input, a);
  for (int32_t l = 0; l < config_.num_layers; ++l) {
    const LayerWeights& w = weights_.layers[l];

    // x += o(attention(norm(x)))
    const bool has_parallel_norm = is_parallel && w.mlp_norm;
    if (has_parallel_norm) Norm(w.mlp_norm, x, nullptr, a.mlp_normed);
    NormOrRound(w.attention_norm, a);
    if (config_.latent.has_value()) {
      LatentAttention(l, input, cache, a);
    } else {
      Attention(l, input, cache, a);
    }
    if (l + 1 == config_.num_layers) {
      if (input.kept_rows.empty()) return;
      a = Keep(input, activations);
    }
    AddProjection(w.o, a.attended, w.post_attention_norm, a);
    if (is_post_norm) Norm(w.attention_norm, x, nullptr, x);

    // x += mlp(norm(x))
    if (!is_parallel) NormOrRound(w.mlp_norm, a);
    const Tensor& mlp_in = has_parallel_norm ? a.mlp_normed : a.normed;
    if (config_.layers[l].is_moe) {
      Moe(w.moe, mlp_in, a);
    } else {
      Mlp(w.mlp, mlp_in, w.post_mlp_norm, a);
    }
    if (is_post_norm && l + 1 < config_.num_layers) Norm(w.mlp_norm, x, nullptr, x);
  }
}

void Model::Embed(const ModelInput& input, const ActivationTensors& a) const {
  const bool projects = static_cast<bool>(weights_.project_in);
  backend_->Embedding({.ids = input.ids,
                       .table = &weights_.embedding,
                       .x = projects ? a.embedded : a.residual,
                       .scale = config_.embedding_scale,
                       .drawn = input.drawn});
  if (projects) {
    Round(a.embedded, a.projected);
    Project(weights_.project_in, a.projected, a.residual);
  }
  if (weights_.positions.n == 0) return;
  // Positions are never negative: as ids they are the same numbers.
  backend_->Embedding({.ids = reinterpret_cast<const uint32_t*>(input.positions),
                       .table = &weights_.positions,
                       .x = a.residual,
                       .accumulate = true});
}

void Model::Attention(int32_t layer, const ModelInput& input, const KvCache& cache, const ActivationTensors& a) const {
  const LayerConfig& c = config_.layers[layer];
  const LayerWeights& w = weights_.layers[layer];
  const int64_t q_cols = int64_t{config_.q_heads} * config_.head_dim,
                kv_cols = int64_t{config_.kv_heads} * config_.head_dim;
  const Tensor q = a.qkv.Cols(0, q_cols), k = a.qkv.Cols(q_cols, kv_cols), v = a.qkv.Cols(q_cols + kv_cols, kv_cols);
  const PagedKv kv = cache.LayerView(layer);
  const KvGroupInput& group = input.groups[cache.spec().GroupOf(layer)];

  Project(w.qkv, a.normed, a.qkv);
  if (w.q_norm) {
    NormHeads(w.q_norm, config_.q_heads, q);
    NormHeads(w.k_norm, config_.kv_heads, k);
  }
  const RopeTable* rope = c.rope.has_value() ? &ropes_[*c.rope] : nullptr;
  backend_->RopeKvWrite({.q = q,
                         .k = k,
                         .v = v,
                         .positions = input.positions,
                         .slots = group.slots,
                         .cos = rope != nullptr ? rope->cos() : nullptr,
                         .sin = rope != nullptr ? rope->sin() : nullptr,
                         .kv = kv,
                         .pairing = rope != nullptr ? rope->pairing() : RopePairing::kNone,
                         .rotary_dim = rope != nullptr ? rope->rotary_dim() : 0});
  backend_->PagedAttention({.q = q,
                            .chunks = group.chunks.data(),
                            .num_chunks = static_cast<int32_t>(group.chunks.size()),
                            .q_heads = config_.q_heads,
                            .scale = c.scale,
                            .kv = kv,
                            .out = a.attended,
                            .window = c.window,
                            .softcap = config_.attention_softcap,
                            .sinks = w.sinks.data(),
                            .alibi_slopes = alibi_slopes_.data()});
}

// In the absorbed form (DeepSeek-V2, §2.1.2): W_uk goes into the queries and W_uv behind the attention, so that the
// latents of the cache are keys and values of all heads at once.
void Model::LatentAttention(int32_t layer, const ModelInput& input, const KvCache& cache,
                            const ActivationTensors& a) const {
  const LatentConfig& c = *config_.latent;
  const LatentWeights& w = weights_.layers[layer].latent;
  const KvGroupInput& group = input.groups[cache.spec().GroupOf(layer)];
  const RopeTable& rope = ropes_[*config_.layers[layer].rope];
  const LatentKv kv = cache.LatentView(layer);
  const int64_t q_dim = c.nope_dim + c.rope_dim;
  // The parts of the queries without and with position, of `count` heads.
  const auto q_nope = [&](int32_t head, int32_t count) {
    return a.q.Cols(head * q_dim, (count - 1) * q_dim + c.nope_dim);
  };
  const auto q_rope = [&](int32_t head, int32_t count) {
    return RopeQueries{.q = a.q.Cols(head * q_dim + c.nope_dim, (count - 1) * q_dim + c.rope_dim),
                       .head_stride = q_dim};
  };

  if (w.q_a) {
    Project(w.q_a, a.normed, a.q_a);
    backend_->RmsNorm({.x = a.q_a,
                       .weight = w.q_a_norm.weight.data(),
                       .epsilon = kLatentEpsilon,
                       .rows = nullptr,
                       .y = a.q_a_normed});
  }
  Project(w.q, w.q_a ? a.q_a_normed : a.normed, a.q);
  Project(w.kv_a, a.normed, a.kv);
  backend_->LatentKvWrite({.q_rope = q_rope(0, config_.q_heads),
                           .num_heads = config_.q_heads,
                           .kv = a.kv,
                           .norm_weight = w.kv_a_norm.weight.data(),
                           .epsilon = kLatentEpsilon,
                           .positions = input.positions,
                           .slots = group.slots,
                           .cos = rope.cos(),
                           .sin = rope.sin(),
                           .pairing = rope.pairing(),
                           .cache = kv});
  for (int32_t head = 0; head < config_.q_heads; head += LatentHeads(config_)) {
    const int32_t count = std::min(LatentHeads(config_), config_.q_heads - head);
    const Tensor q_latent = a.q_latent.Cols(0, int64_t{count} * c.kv_rank);
    const Tensor attended = a.attended_latent.Cols(0, int64_t{count} * c.kv_rank);
    backend_->HeadLinear({.x = q_nope(head, count),
                          .x_head_stride = q_dim,
                          .weights = &w.k_up[head],
                          .num_heads = count,
                          .y = q_latent,
                          .y_head_stride = c.kv_rank});
    backend_->LatentAttention({.q_latent = q_latent,
                               .q_rope = q_rope(head, count),
                               .chunks = group.chunks.data(),
                               .num_chunks = static_cast<int32_t>(group.chunks.size()),
                               .num_heads = count,
                               .scale = config_.layers[layer].scale,
                               .kv = kv,
                               .out = attended});
    backend_->HeadLinear({.x = attended,
                          .x_head_stride = c.kv_rank,
                          .weights = &w.v_up[head],
                          .num_heads = count,
                          .y = a.attended.Cols(int64_t{head} * c.v_dim, int64_t{count} * c.v_dim),
                          .y_head_stride = c.v_dim});
  }
}

ActivationTensors Model::Keep(const ModelInput& input, Activations& activations) const {
  const auto num_kept = static_cast<int64_t>(input.kept_rows.size());
  if (num_kept < input.num_rows) {
    const ActivationTensors a = activations.Rows(input.num_rows);
    const auto gather = [&](const Tensor& x) {
      if (x.cols > 0) backend_->GatherRows({.x = x, .rows = input.kept_rows.data(), .num_kept = num_kept});
    };
    gather(a.residual);
    gather(a.attended);
    if (config_.block == BlockKind::kParallel) {  // the others' MLP reads what is made of the residual stream anew
      gather(a.normed);
      gather(a.mlp_normed);
    }
  }
  return activations.Rows(num_kept);
}

void Model::Mlp(const MlpWeights& w, const Tensor& x, const NormWeights& post_norm, const ActivationTensors& a) const {
  const Tensor up = a.up.Cols(0, w.up.weight.n), activated = a.activated.Cols(0, w.down.weight.k);
  Project(w.up, x, up);
  if (config_.gated_mlp) {
    backend_->GatedActivation({.gate_up = up, .y = activated, .gate = config_.gate});
  } else {
    backend_->Activation({.x = up, .kind = config_.activation, .y = activated});
  }
  AddProjection(w.down, activated, post_norm, a);
}

void Model::Moe(const MoeWeights& w, const Tensor& x, const ActivationTensors& a) const {
  const MoeConfig& c = *config_.moe;
  Project(w.router, x, a.router);
  backend_->Route({.logits = a.router,
                   .top_k = c.top_k,
                   .experts = a.experts,
                   .weights = a.expert_weights,
                   .score = c.score,
                   .normalize = c.normalize,
                   .scale = c.routed_scale,
                   .bias = w.correction_bias.data(),
                   .num_groups = c.num_groups,
                   .top_groups = c.top_groups,
                   .group_score = c.group_score});
  backend_->Moe({.x = x,
                 .experts = a.experts,
                 .weights = a.expert_weights,
                 .top_k = c.top_k,
                 .num_experts = c.num_experts,
                 .gate_up = w.gate_up.data(),
                 .down = w.down.data(),
                 .gate = c.gate,
                 .y = a.residual,
                 .gate_up_bias = w.gate_up_bias.data(),
                 .down_bias = w.down_bias.data()});
  if (w.shared.up) Mlp(w.shared, x, {}, a);
}

Tensor Model::Logits(absl::Span<const int32_t> rows, Activations& activations) const {
  const auto num_rows = static_cast<int64_t>(rows.size());
  Check(num_rows <= activations.logits.rows, "more head rows at once than planned");
  const Tensor logits = activations.logits.Rows(0, num_rows);
  Tensor head_in = activations.head_in.Rows(0, num_rows);
  Norm(weights_.last_norm(), activations.residual, rows.data(), head_in);
  if (weights_.project_out) {
    const Tensor embedded = activations.head_embedded.Rows(0, num_rows);
    Project(weights_.project_out, head_in, embedded);
    head_in = activations.head_projected.Rows(0, num_rows);
    Round(embedded, head_in);
  }
  backend_->Linear({.x = head_in, .weight = &weights_.head(), .bias = nullptr, .accumulate = false, .y = logits});
  if (config_.logits_softcap > 0) {
    backend_->Activation({.x = logits, .kind = ActivationKind::kSoftCap, .y = logits, .cap = config_.logits_softcap});
  }
  return logits;
}

void Model::Norm(const NormWeights& w, const Tensor& x, const int32_t* rows, const Tensor& y) const {
  if (config_.norm == NormKind::kRms) {
    backend_->RmsNorm({.x = x, .weight = w.weight.data(), .epsilon = config_.norm_eps, .rows = rows, .y = y});
  } else {
    backend_->LayerNorm(
        {.x = x, .weight = w.weight.data(), .bias = w.bias.data(), .epsilon = config_.norm_eps, .rows = rows, .y = y});
  }
}

void Model::NormHeads(const NormWeights& w, int32_t heads, const Tensor& x) const {
  backend_->RmsNorm(
      {.x = x, .weight = w.weight.data(), .epsilon = config_.norm_eps, .rows = nullptr, .y = x, .heads = heads});
}

void Model::NormOrRound(const NormWeights& w, const ActivationTensors& a) const {
  if (config_.block == BlockKind::kPostNorm) {
    Round(a.residual, a.normed);
  } else {
    Norm(w, a.residual, nullptr, a.normed);
  }
}

void Model::Round(const Tensor& x, const Tensor& y) const {
  backend_->Activation({.x = x, .kind = ActivationKind::kIdentity, .y = y});
}

void Model::Project(const Projection& w, const Tensor& x, const Tensor& y) const {
  backend_->Linear({.x = x, .weight = &w.weight, .bias = w.bias.data(), .accumulate = false, .y = y});
}

void Model::AddProjection(const Projection& w, const Tensor& x, const NormWeights& post_norm,
                          const ActivationTensors& a) const {
  const Tensor& y = post_norm ? a.branch : a.residual;
  backend_->Linear({.x = x, .weight = &w.weight, .bias = w.bias.data(), .accumulate = !post_norm, .y = y});
  if (!post_norm) return;
  backend_->RmsNorm({.x = y,
                     .weight = post_norm.weight.data(),
                     .epsilon = config_.norm_eps,
                     .rows = nullptr,
                     .y = a.residual,
                     .accumulate = true});
}

}  // namespace quire
