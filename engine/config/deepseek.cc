// DeepSeek-V2 and V3: multi-head latent attention, shared and routed experts (DeepSeek-V2 §2, DeepSeek-V3 §2.1).

#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/config/families.h"
#include "engine/json_text.h"
#include "kernels/latent_attention/latent_kv.h"

namespace quire {
namespace {

constexpr int64_t kMaxLatentHead = 256;  // elements of a head's parts

// Dims that the latent attention kernels take: even.
int32_t ReadLatentDim(KeyReader& keys, const char* key, int64_t max, int64_t absent) {
  const int32_t dim = keys.Int(key, 2, max, absent);
  if (dim % 2 != 0) keys.Fail(key, absl::StrCat(dim), "an even number");
  return dim;
}

void ReadLatent(KeyReader& keys, int64_t absent_q_rank, ModelConfig& config) {
  LatentConfig latent;
  const bool compresses_q = keys.Find("q_lora_rank") != nullptr || !keys.Has("q_lora_rank");
  if (compresses_q) latent.q_rank = keys.Int("q_lora_rank", 1, kMaxWidth, absent_q_rank);
  latent.kv_rank = ReadLatentDim(keys, "kv_lora_rank", kMaxLatentDim, 512);
  latent.nope_dim = keys.Int("qk_nope_head_dim", 1, kMaxLatentHead, 128);
  latent.rope_dim = ReadLatentDim(keys, "qk_rope_head_dim", kMaxLatentRopeDim, 64);
  latent.v_dim = keys.Int("v_head_dim", 1, kMaxLatentHead, 128);
  config.latent = latent;
  config.q_heads = keys.Int("num_attention_heads", 1, kMaxHeads);
  const int32_t kv_heads = keys.Int("num_key_value_heads", 1, kMaxHeads, config.q_heads);
  if (kv_heads != config.q_heads)
    keys.Fail("num_key_value_heads", absl::StrCat(kv_heads), absl::StrCat("num_attention_heads = ", config.q_heads));
  config.kv_heads = 1;  // of the cache: one latent for all heads
  config.head_dim = latent.CacheDim();
}

void ReadDeepseekMoe(KeyReader& keys, int64_t num_experts, int64_t dense_layers, ModelConfig& config) {
  MoeConfig moe;
  moe.num_experts = keys.Int("n_routed_experts", 1, kMaxExperts, num_experts);
  moe.top_k = keys.Int("num_experts_per_tok", 1, moe.num_experts, std::min(8, moe.num_experts));
  moe.intermediate_size = keys.Int("moe_intermediate_size", 1, kMaxWidth);
  const bool has_shared = keys.Find("n_shared_experts") != nullptr;
  const int64_t shared = has_shared ? keys.Int("n_shared_experts", 0, kMaxExperts) : 0;
  if (shared * moe.intermediate_size > kMaxWidth)
    keys.Fail("n_shared_experts", absl::StrCat(shared), absl::StrCat("at most ", kMaxWidth, " dims together"));
  moe.shared_intermediate_size = static_cast<int32_t>(std::min(shared * moe.intermediate_size, kMaxWidth));
  moe.routed_scale = static_cast<float>(keys.Number("routed_scaling_factor", 1e-6, 1e6, 1.0));
  keys.OnlyNumber("moe_layer_freq", 1);
  config.moe = moe;
  const int32_t dense = keys.Int("first_k_dense_replace", 0, kMaxLayers, dense_layers);
  for (int32_t l = 0; l < config.num_layers; ++l) config.layers[l].is_moe = l >= dense;
}

void ReadGroups(KeyReader& keys, int64_t num_groups, int64_t top_groups, MoeConfig& moe) {
  moe.num_groups = keys.Int("n_group", 1, moe.num_experts, num_groups);
  moe.top_groups = keys.Int("topk_group", 1, moe.num_groups, std::min<int64_t>(top_groups, moe.num_groups));
  if (moe.num_experts % moe.num_groups != 0)
    return keys.Fail("n_group", absl::StrCat(moe.num_groups), absl::StrCat("a divisor of ", moe.num_experts));
  const int32_t group = moe.num_experts / moe.num_groups;
  if (moe.group_score == RouteGroupScore::kTopTwoSum && group < 2)
    keys.Fail("n_group", absl::StrCat(moe.num_groups), "groups of two experts or more");
  if (moe.top_groups * group < moe.top_k) {
    keys.Fail("topk_group", absl::StrCat(moe.top_groups),
              absl::StrCat("groups that hold num_experts_per_tok = ", moe.top_k, " experts"));
  }
}

void ReadDeepseek(KeyReader& keys, int64_t num_experts, int64_t dense_layers, bool interleaved, ModelConfig& config) {
  config.vocab_size = keys.Int("vocab_size", 1, kMaxVocab);
  config.hidden_size = keys.Int("hidden_size", 1, kMaxWidth);
  config.intermediate_size = keys.Int("intermediate_size", 1, kMaxWidth);
  config.num_layers = keys.Int("num_hidden_layers", 1, kMaxLayers);
  config.max_position_embeddings = keys.Int("max_position_embeddings", 2, kMaxPositions);
  config.norm_eps = static_cast<float>(keys.Number("rms_norm_eps", 1e-12, 1.0));
  config.tie_word_embeddings = keys.Bool("tie_word_embeddings", false);
  keys.OnlyText("hidden_act", "silu");
  keys.OnlyFalse("attention_bias");
  keys.OnlyFalse("mlp_bias");
  ReadLatent(keys, 1536, config);
  ReadOneRope(keys, config.latent->rope_dim, config, {.interleaved = interleaved});
  SetLayers(config.latent->nope_dim + config.latent->rope_dim, config);
  // YaRN flattens attention through the softmax's scale too, by the square of its factor.
  const RopeConfig& rope = config.ropes[0];
  if (rope.kind != RopeKind::kDefault && rope.mscale_all_dim != 0 && rope.factor > 1) {
    const double mscale = 0.1 * rope.mscale_all_dim * std::log(rope.factor) + 1.0;
    for (LayerConfig& layer : config.layers) layer.scale = static_cast<float>(layer.scale * mscale * mscale);
  }
  ReadDeepseekMoe(keys, num_experts, dense_layers, config);
}

}  // namespace

void ReadDeepseekV2(KeyReader& keys, ModelConfig& config) {
  ReadDeepseek(keys, 64, 0, /*interleaved=*/true, config);
  keys.OnlyText("scoring_func", "softmax");
  // norm_topk_prob has no effect in this family: transformers does not read it.
  const std::string method = keys.Text("topk_method", {"greedy", "group_limited_greedy"}, "greedy");
  if (method == "group_limited_greedy") ReadGroups(keys, 1, 1, *config.moe);
}

void ReadDeepseekV3(KeyReader& keys, ModelConfig& config) {
  ReadDeepseek(keys, 256, 3, keys.Bool("rope_interleave", true), config);
  keys.OnlyText("scoring_func", "sigmoid");
  keys.OnlyText("topk_method", "noaux_tc");
  config.moe->score = RouteScore::kSigmoid;
  config.moe->group_score = RouteGroupScore::kTopTwoSum;
  config.moe->correction_bias = true;
  config.moe->normalize = keys.Bool("norm_topk_prob", true);
  ReadGroups(keys, 8, 4, *config.moe);
}

}  // namespace quire
