#include "server/model_info.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/tokenizer/unicode.h"

namespace quire {
namespace {

std::string Size(uint64_t bytes) {
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  for (; value >= 1024 && unit < 3; ++unit) value /= 1024;
  return absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

// "32 layers keep all positions", "28 layers window 1024: at most 112.0 MiB for a sequence", ...; groups that keep the
// same are one line.
std::string LayersText(const KvCacheSpec& kv) {
  std::map<int32_t, uint64_t> layers_of;  // by window; 0, all positions, comes first
  for (const KvGroup& group : kv.groups) layers_of[group.window] += group.layers.size();
  std::string text;
  for (const auto& [window, num_layers] : layers_of) {
    absl::StrAppendFormat(&text, "%s%d layers ", text.empty() ? "layers      " : "            ", num_layers);
    if (window == 0) {
      absl::StrAppend(&text, "keep all positions\n");
    } else {
      absl::StrAppendFormat(&text, "window %d: at most %s for a sequence\n", window,
                            Size(num_layers * static_cast<uint64_t>(window) * kv.BytesPerTokenPerLayer()));
    }
  }
  return text;
}

std::string CacheTypeName(const KvCacheSpec& kv) { return std::string(KvTypeName(kv.dtype, kv.quantization)); }

// What a token and a sequence keep.
std::string KvText(const KvCacheSpec& kv, int32_t max_model_len) {
  std::string text = absl::StrFormat("KV          %d bytes per token = ", kv.BytesPerToken());
  const auto bytes = static_cast<int>(DTypeBytes(kv.dtype));
  if (kv.is_latent()) {
    absl::StrAppendFormat(&text, "%d layers x %d latent (%d + %d rotary) x %d bytes\n", kv.NumLayers(), kv.Elements(),
                          kv.latent_dim, kv.rope_dim, bytes);
  } else {
    absl::StrAppendFormat(&text, "2 x %d layers x %d KV heads x ", kv.NumLayers(), kv.kv_heads);
    if (kv.quantization == KvQuantization::kNone) {
      absl::StrAppendFormat(&text, "%d x %d bytes\n", kv.head_dim, bytes);
    } else {
      absl::StrAppendFormat(&text, "%d bytes (%d of %s, a scale)\n", kv.HeadBytes(), kv.head_dim, CacheTypeName(kv));
    }
  }
  const bool has_windows =
      std::any_of(kv.groups.begin(), kv.groups.end(), [](const KvGroup& g) { return g.window > 0; });
  if (has_windows) {
    absl::StrAppend(&text, LayersText(kv));
    absl::StrAppendFormat(&text, "            a sequence of %d tokens keeps %s, not %s\n", max_model_len,
                          Size(kv.BytesPerSequence(max_model_len)),
                          Size(kv.BytesPerToken() * static_cast<uint64_t>(max_model_len)));
  }
  return text;
}

// What the pool is cut into, and how many of the longest requests it holds at once.
std::string BlocksText(const MemoryPlan& plan) {
  const KvCacheSpec& kv = plan.kv;
  std::string text = absl::StrFormat("blocks      %d of %d tokens", plan.num_blocks, kv.block_size);
  if (kv.groups.size() > 1) {
    absl::StrAppendFormat(&text, " in %d layers, a sequence has tables for %d such groups", kv.layers_per_group,
                          kv.groups.size());
  }
  const int64_t longest = kv.BlocksFor(plan.max_model_len);
  absl::StrAppendFormat(&text, "\nlongest     a sequence of %d tokens, %d blocks: %d at once\n", plan.max_model_len,
                        longest, plan.num_blocks / std::max<int64_t>(longest, 1));
  return text;
}

absl::string_view KindName(KvKind kind) {
  switch (kind) {
    case KvKind::kFull:
      return "full";
    case KvKind::kWindow:
      return "window";
    case KvKind::kLatent:
      return "latent";
  }
  return "";
}

}  // namespace

v1::GetModelResponse DescribeModel(absl::string_view name, const ModelConfig& config, const MemoryPlan& plan,
                                   absl::string_view backend) {
  v1::GetModelResponse model;
  model.set_name(std::string(name));
  model.set_family(config.architecture);
  model.set_vocab_size(static_cast<uint32_t>(config.vocab_size));
  model.set_max_model_len(static_cast<uint32_t>(plan.max_model_len));
  model.set_layers(static_cast<uint32_t>(config.num_layers));
  model.set_q_heads(static_cast<uint32_t>(config.q_heads));
  model.set_kv_heads(static_cast<uint32_t>(config.kv_heads));
  model.set_head_dim(static_cast<uint32_t>(config.head_dim));
  model.set_block_size(static_cast<uint32_t>(plan.kv.block_size));
  model.set_num_blocks(static_cast<uint64_t>(plan.num_blocks));
  model.set_kv_bytes_per_token(plan.kv.BytesPerToken());
  model.set_kv_cache_dtype(CacheTypeName(plan.kv));
  model.set_weight_dtype(plan.weight_dtype);
  model.set_backend(std::string(backend));
  model.set_version(QUIRE_VERSION);
  return model;
}

absl::StatusOr<std::string> ServedName(const std::string& given, const std::string& path) {
  std::string name = given;
  if (name.empty()) {
    const std::filesystem::path whole = (std::filesystem::absolute(path) / "").lexically_normal();
    name = whole.parent_path().filename().string();
  }
  std::string valid;  // with U+FFFD where `name` is not
  AppendUtf8(name, /*at_end=*/true, valid);
  const bool has_control =
      std::any_of(name.begin(), name.end(), [](unsigned char c) { return absl::ascii_iscntrl(c); });
  if (!name.empty() && name == valid && !has_control) return name;
  return absl::InvalidArgumentError(
      absl::StrCat("--served-model-name: ", given.empty() ? "the last part of --model is \"" : "found \"",
                   absl::CHexEscape(name), "\", allowed: UTF-8 without control characters"));
}

std::string PlanText(const v1::GetModelResponse& model, const MemoryPlan& plan) {
  const uint64_t total = plan.weight_bytes + plan.kv_bytes + plan.workspace_bytes + plan.graph_bytes;
  const std::string heads = plan.kv.is_latent()
                                ? "one latent for all"
                                : absl::StrFormat("%d KV heads of %d", model.kv_heads(), model.head_dim());
  std::string text = absl::StrFormat("%s: %s, %d layers, %d query heads, %s, vocabulary %d\n", model.name(),
                                     model.family(), model.layers(), model.q_heads(), heads, model.vocab_size());
  absl::StrAppend(&text, "backend     ", model.backend(), ", weights ", model.weight_dtype(), ", cache ",
                  model.kv_cache_dtype(), "\n");
  absl::StrAppend(&text, KvText(plan.kv, plan.max_model_len), BlocksText(plan));
  const std::string graphs = plan.graph_bytes == 0 ? "" : absl::StrCat(" + graphs ", Size(plan.graph_bytes));
  absl::StrAppendFormat(&text, "memory      weights %s + KV %s + workspaces %s%s = %s\n", Size(plan.weight_bytes),
                        Size(plan.kv_bytes), Size(plan.workspace_bytes), graphs, Size(total));
  return text;
}

std::string PlanJson(const v1::GetModelResponse& model, const MemoryPlan& plan) {
  const int64_t max_model_len = plan.max_model_len;
  nlohmann::ordered_json groups = nlohmann::ordered_json::array();
  for (const KvGroup& group : plan.kv.groups) {
    groups.push_back({{"kind", std::string(KindName(group.kind))}, {"window", group.window}, {"layers", group.layers}});
  }
  const nlohmann::ordered_json json = {
      {"name", model.name()},
      {"family", model.family()},
      {"vocab_size", model.vocab_size()},
      {"max_model_len", model.max_model_len()},
      {"layers", model.layers()},
      {"q_heads", model.q_heads()},
      {"kv_heads", model.kv_heads()},
      {"head_dim", model.head_dim()},
      {"block_size", model.block_size()},
      {"num_blocks", model.num_blocks()},
      {"kv_bytes_per_token", model.kv_bytes_per_token()},
      {"kv_cache_dtype", model.kv_cache_dtype()},
      {"weight_dtype", model.weight_dtype()},
      {"backend", model.backend()},
      {"version", model.version()},
      {"kv_groups", groups},
      {"kv_bytes_per_block", plan.kv.BytesPerBlock()},
      {"longest_sequence_bytes", plan.kv.BytesPerSequence(max_model_len)},
      {"longest_sequence_blocks", plan.kv.BlocksFor(max_model_len)},
      {"weight_bytes", plan.weight_bytes},
      {"kv_bytes", plan.kv_bytes},
      {"workspace_bytes", plan.workspace_bytes},
      {"graph_bytes", plan.graph_bytes},
      {"total_bytes", plan.weight_bytes + plan.kv_bytes + plan.workspace_bytes + plan.graph_bytes},
  };
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace quire
