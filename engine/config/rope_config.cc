#include "engine/config/rope_config.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/json_text.h"

namespace quire {
namespace {

using nlohmann::json;

constexpr double kMinTheta = 1.0, kMaxTheta = 1e12;
constexpr double kMaxFactor = 1e6;
constexpr int64_t kMaxPositions = 1 << 27;

// YaRN, §3.4: a longer context makes attention flatter.
double YarnScale(double factor, double mscale) { return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

RopeKind ReadKind(KeyReader& rope) {
  const char* key = rope.Find("rope_type") != nullptr ? "rope_type" : "type";  // the older name of it
  const std::string kind =
      rope.Text(key, {"default", "linear", "dynamic", "yarn", "longrope", "su", "llama3"}, "default");
  if (kind == "linear") return RopeKind::kLinear;
  if (kind == "dynamic") return RopeKind::kDynamic;
  if (kind == "yarn") return RopeKind::kYarn;
  if (kind == "longrope" || kind == "su") return RopeKind::kLongRope;
  return kind == "llama3" ? RopeKind::kLlama3 : RopeKind::kDefault;
}

void ReadYarn(KeyReader& rope, RopeConfig& config) {
  constexpr double kMaxBeta = 1e6, kMaxMscale = 100;
  const double mscale = rope.Number("mscale", 0, kMaxMscale, 0);
  config.mscale_all_dim = rope.Number("mscale_all_dim", 0, kMaxMscale, 0);
  const double inferred = mscale != 0 && config.mscale_all_dim != 0
                              ? YarnScale(config.factor, mscale) / YarnScale(config.factor, config.mscale_all_dim)
                              : YarnScale(config.factor, 1);
  config.attention_factor = rope.Number("attention_factor", 0, kMaxMscale, inferred);
  config.beta_fast = rope.Number("beta_fast", 1e-6, kMaxBeta, config.beta_fast);
  config.beta_slow = rope.Number("beta_slow", 1e-6, kMaxBeta, config.beta_slow);
  config.truncate = rope.Bool("truncate", true);
}

void ReadLongRope(KeyReader& rope, RopeConfig& config) {
  constexpr double kMinFactor = 1e-3, kMaxAttention = 100;
  const double inferred =
      config.factor <= 1 ? 1.0 : std::sqrt(1 + std::log(config.factor) / std::log(config.original_len));
  config.attention_factor = rope.Number("attention_factor", 0, kMaxAttention, inferred);
  config.short_factor = rope.Numbers("short_factor", config.NumFrequencies(), kMinFactor, kMaxFactor);
  config.long_factor = rope.Numbers("long_factor", config.NumFrequencies(), kMinFactor, kMaxFactor);
}

// The scaling in `rope`, whose theta and dim are known.
void ReadScaling(KeyReader& keys, KeyReader& rope, int32_t max_len, RopeConfig& config) {
  config.kind = ReadKind(rope);
  rope.OnlyKeys({"rope_type", "type", "rope_theta", "partial_rotary_factor", "factor",
                 "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale",
                 "mscale_all_dim", "truncate", "finetuned", "low_freq_factor", "high_freq_factor", "short_factor",
                 "long_factor"});
  if (config.kind == RopeKind::kDefault) return;
  const bool has_original = config.kind != RopeKind::kLinear && config.kind != RopeKind::kDynamic;
  config.original_len = max_len;
  if (has_original) {
    config.original_len = rope.Int("original_max_position_embeddings", 2, kMaxPositions, max_len);
    // Where it stands beside max_position_embeddings it counts (Phi-3).
    config.original_len = keys.Int("original_max_position_embeddings", 2, kMaxPositions, config.original_len);
  }
  const bool may_infer = config.kind == RopeKind::kYarn || config.kind == RopeKind::kLongRope;
  std::optional<double> inferred;
  if (may_infer) inferred = std::max(1.0, double{1} * max_len / config.original_len);
  config.factor = rope.Number("factor", 1, kMaxFactor, inferred);
  if (config.kind == RopeKind::kYarn) ReadYarn(rope, config);
  if (config.kind == RopeKind::kLongRope) ReadLongRope(rope, config);
  if (config.kind == RopeKind::kLlama3) {
    config.low_freq_factor = rope.Number("low_freq_factor", 1e-3, kMaxFactor);
    config.high_freq_factor = rope.Number("high_freq_factor", 1e-3, kMaxFactor);
    if (config.high_freq_factor <= config.low_freq_factor) {
      rope.Fail("high_freq_factor", absl::StrCat(config.high_freq_factor),
                absl::StrCat("more than low_freq_factor = ", config.low_freq_factor));
    }
  }
}

void ReadDim(KeyReader& from, int32_t head_dim, double absent, RopeConfig& config) {
  const double part = from.Number("partial_rotary_factor", 1e-3, 1.0, absent);
  config.dim = static_cast<int32_t>(head_dim * part);
  if (config.dim < 1)
    from.Fail("partial_rotary_factor", absl::StrCat(part), absl::StrCat("at least one of ", head_dim, " dims"));
}

}  // namespace

RopeConfig ReadRope(KeyReader& keys, int32_t head_dim, int32_t max_len, const RopeDefaults& defaults) {
  RopeConfig config{.theta = keys.Number("rope_theta", kMinTheta, kMaxTheta, defaults.theta),
                    .interleaved = defaults.interleaved};
  const double part = keys.Number("partial_rotary_factor", 1e-3, 1.0, 1.0);
  ReadDim(keys, head_dim, 1.0, config);
  const bool has_scaling = keys.Find("rope_scaling") != nullptr;
  const char* key = has_scaling ? "rope_scaling" : "rope_parameters";
  const json* value = keys.Find(key);
  if (value == nullptr) return config;
  if (!value->is_object()) {
    keys.Fail(key, Shown(*value), "an object, null");
    return config;
  }
  KeyReader rope(*value, absl::StrCat(keys.where(), ": ", key));
  config.theta = rope.Number("rope_theta", kMinTheta, kMaxTheta, config.theta);
  ReadDim(rope, head_dim, part, config);
  ReadScaling(keys, rope, max_len, config);
  keys.Update(rope.status());
  return config;
}

RopeConfig ReadRopeOfLayerType(KeyReader& keys, const char* layer_type, int32_t head_dim, int32_t max_len,
                               const RopeDefaults& defaults) {
  RopeConfig config{.theta = defaults.theta, .dim = head_dim, .interleaved = defaults.interleaved};
  const json* all = keys.Find("rope_parameters");
  if (all == nullptr) return config;
  if (!all->is_object()) {
    keys.Fail("rope_parameters", Shown(*all), "an object, null");
    return config;
  }
  KeyReader nested(*all, absl::StrCat(keys.where(), ": rope_parameters"));
  nested.OnlyKeys({"full_attention", "sliding_attention"});
  if (const json* value = nested.Find(layer_type); value != nullptr && !value->is_object()) {
    nested.Fail(layer_type, Shown(*value), "an object, null");
  } else if (value != nullptr) {
    KeyReader rope(*value, absl::StrCat(nested.where(), ": ", layer_type));
    config.theta = rope.Number("rope_theta", kMinTheta, kMaxTheta, config.theta);
    ReadDim(rope, head_dim, 1.0, config);
    ReadScaling(keys, rope, max_len, config);
    nested.Update(rope.status());
  }
  keys.Update(nested.status());
  return config;
}

int32_t ScaledLen(const RopeConfig& rope, int32_t max_len) {
  double len = max_len;
  if (rope.kind == RopeKind::kLinear || rope.kind == RopeKind::kDynamic) len = rope.factor * max_len;
  if (rope.kind == RopeKind::kYarn) len = rope.factor * rope.original_len;
  return static_cast<int32_t>(std::clamp<double>(len, max_len, kMaxPositions));
}

}  // namespace quire
