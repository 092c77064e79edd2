#include "server/model_info.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

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

// The formula, and what a request of `len` tokens keeps where windows let go of some.
std::string KvText(const KvCacheSpec& kv, int32_t len) {
  std::string text = absl::StrFormat("KV          %d bytes per token = ", kv.BytesPerToken());
  const auto bytes = static_cast<int>(DTypeBytes(kv.dtype));
  if (kv.is_latent()) {
    absl::StrAppendFormat(&text, "%d layers x (%d latent + %d rotary) x %d bytes\n", kv.NumLayers(), kv.latent_dim,
                          kv.rope_dim, bytes);
  } else {
    absl::StrAppendFormat(&text, "2 x %d layers x %d KV heads x %d x %d bytes\n", kv.NumLayers(), kv.kv_heads,
                          kv.head_dim, bytes);
  }
  for (const KvGroup& group : kv.groups) {
    if (group.kind != KvKind::kWindow) continue;
    absl::StrAppendFormat(&text, "windows     a request of %d tokens keeps %s, not %s\n", len,
                          Size(kv.BytesPerSequence(len)), Size(kv.BytesPerToken() * static_cast<uint64_t>(len)));
    break;
  }
  return text;
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
  model.set_kv_cache_dtype(std::string(DTypeName(plan.kv.dtype)));
  model.set_weight_dtype(std::string(DTypeName(plan.dtype)));
  model.set_backend(std::string(backend));
  model.set_version(QUIRE_VERSION);
  return model;
}

std::string LastPathPart(const std::string& path) {
  const std::filesystem::path whole = (std::filesystem::absolute(path) / "").lexically_normal();
  return whole.parent_path().filename().string();
}

std::string PlanText(const v1::GetModelResponse& model, const MemoryPlan& plan) {
  const uint64_t total = plan.weight_bytes + plan.kv_bytes + plan.workspace_bytes;
  std::string text = absl::StrFormat("%s: %s, %d layers, %d query heads, %d KV heads of %d, vocabulary %d\n",
                                     model.name(), model.family(), model.layers(), model.q_heads(), model.kv_heads(),
                                     model.head_dim(), model.vocab_size());
  absl::StrAppend(&text, "backend     ", model.backend(), ", weights ", model.weight_dtype(), ", cache ",
                  model.kv_cache_dtype(), "\n");
  absl::StrAppend(&text, KvText(plan.kv, plan.max_model_len));
  absl::StrAppendFormat(&text, "blocks      %d of %d tokens; longest request %d tokens, %d blocks\n",
                        model.num_blocks(), model.block_size(), model.max_model_len(),
                        plan.kv.BlocksFor(plan.max_model_len));
  absl::StrAppendFormat(&text, "memory      weights %s + KV %s + workspaces %s = %s\n", Size(plan.weight_bytes),
                        Size(plan.kv_bytes), Size(plan.workspace_bytes), Size(total));
  return text;
}

std::string PlanJson(const v1::GetModelResponse& model, const MemoryPlan& plan) {
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
      {"weight_bytes", plan.weight_bytes},
      {"kv_bytes", plan.kv_bytes},
      {"workspace_bytes", plan.workspace_bytes},
      {"total_bytes", plan.weight_bytes + plan.kv_bytes + plan.workspace_bytes},
  };
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace quire
