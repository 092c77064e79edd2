#include "engine/memory_plan.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/checkpoint.h"
#include "engine/gguf_model.h"
#include "engine/model.h"
#include "engine/weights.h"
#include "kvcache/block_pool.h"

namespace quire {
namespace {

constexpr int32_t kMaxBlockSize = 256;     // slots, of PagedKv
constexpr int32_t kBlockSizeMultiple = 8;  // slots, of PagedKv
constexpr int32_t kMaxNumSeqs = 1 << 16;
constexpr int32_t kMaxNumBatchedTokens = 1 << 20;
constexpr int32_t kMinModelLen = 2;  // a prompt of one token and one token of output

template <typename Found>
absl::Status FlagError(absl::string_view flag, const Found& found, absl::string_view allowed) {
  return absl::InvalidArgumentError(absl::StrCat(flag, ": found ", found, ", allowed: ", allowed));
}

absl::Status CheckRange(absl::string_view flag, int64_t found, int64_t min, int64_t max) {
  if (found >= min && found <= max) return absl::OkStatus();
  return FlagError(flag, found, absl::StrCat(min, " to ", max));
}

absl::Status CheckFlags(const EngineOptions& options) {
  if (options.block_size < kBlockSizeMultiple || options.block_size > kMaxBlockSize ||
      options.block_size % kBlockSizeMultiple != 0) {
    return FlagError(
        "--block-size", options.block_size,
        absl::StrCat("multiples of ", kBlockSizeMultiple, " from ", kBlockSizeMultiple, " to ", kMaxBlockSize));
  }
  absl::Status status = CheckRange("--max-num-seqs", options.max_num_seqs, 1, kMaxNumSeqs);
  status.Update(CheckRange("--max-num-batched-tokens", options.max_num_batched_tokens, 1, kMaxNumBatchedTokens));
  status.Update(
      CheckRange("--chunked-prefill-size", options.chunked_prefill_size.value_or(1), 1, kMaxNumBatchedTokens));
  status.Update(
      CheckRange("--max-waiting-requests", options.max_waiting_requests, 1, std::numeric_limits<int32_t>::max()));
  status.Update(CheckRange("--max-waiting-tokens", options.max_waiting_tokens, 1, std::numeric_limits<int64_t>::max()));
  return status;
}

// The tokens that one sequence may have: what is asked for, or as many of the model's as the cache holds.
absl::StatusOr<int32_t> ModelLen(const ModelConfig& config, const EngineOptions& options, const MemoryPlan& plan) {
  if (!options.max_model_len.has_value())
    return static_cast<int32_t>(plan.kv.TokensIn(plan.num_blocks, config.max_position_embeddings));
  const int32_t len = *options.max_model_len;
  if (len < kMinModelLen || len > config.max_scaled_len) {
    const bool is_scaled = config.max_scaled_len > config.max_position_embeddings;
    return FlagError(
        "--max-model-len", len,
        absl::StrCat(kMinModelLen, " to the model's ",
                     is_scaled ? "max_position_embeddings as its RoPE scaling allows = " : "max_position_embeddings = ",
                     config.max_scaled_len));
  }
  if (const int64_t cache_len = plan.kv.TokensIn(plan.num_blocks, len); len > cache_len) {
    return FlagError("--max-model-len", len,
                     absl::StrCat("at most the ", cache_len, " tokens that --kv-cache-memory of ", plan.kv_bytes,
                                  " bytes holds, or --kv-cache-memory of ",
                                  plan.kv.BlocksFor(len) * plan.kv.BytesPerBlock(), " bytes or more"));
  }
  return len;
}

// Prompt tokens of one step. A CPU is bound by arithmetic from a few dozen rows on: larger steps than this read the
// weights less often, which hardly shows, and everyone waits for their end (figures in tests/bench/README.md).
int32_t ChunkedPrefillSize(const EngineOptions& options, const Backend& backend) {
  constexpr int32_t kCpu = 256;
  const int32_t size = options.chunked_prefill_size.value_or(
      backend.kind() == BackendKind::kCpu ? kCpu : options.max_num_batched_tokens);
  return std::min(size, options.max_num_batched_tokens);
}

// What the layers keep of a token, and of which tokens.
absl::StatusOr<KvCacheSpec> CacheSpec(const ModelConfig& config, const EngineOptions& options, DType dtype) {
  const bool quantized = options.kv_quantization != KvQuantization::kNone;
  KvShape shape{.block_size = options.block_size,
                .dtype = quantized ? DType::kBFloat16 : options.kv_cache_dtype.value_or(dtype),
                .quantization = options.kv_quantization};
  if (quantized && config.latent.has_value()) {
    const std::string_view found = KvTypeName(shape.dtype, shape.quantization);
    return FlagError("--kv-cache-dtype", absl::string_view(found.data(), found.size()),
                     "auto, float32, bfloat16, float16 for the latents of this model");
  }
  if (config.latent.has_value()) {
    shape.latent_dim = config.latent->kv_rank;
    shape.rope_dim = config.latent->rope_dim;
    return MakeKvCacheSpec(shape, config.num_layers);
  }
  shape.kv_heads = config.kv_heads;
  shape.head_dim = config.head_dim;
  std::vector<int32_t> windows;
  for (const LayerConfig& layer : config.layers) windows.push_back(layer.window);
  return MakeKvCacheSpec(shape, windows);
}

// Weights by dtype and --quantization, but for the tensors that a file has quantised.
absl::Status PlanWeights(const ModelConfig& config, const EngineOptions& options, const Backend& backend,
                         MemoryPlan& plan) {
  const WeightFormat format(plan.dtype, options.quantization);
  plan.has_quantized_weights = format.quantized();
  plan.weight_dtype = options.quantization == BlockFormat::kQ8_0   ? "int8"
                      : options.quantization == BlockFormat::kQ4_0 ? "int4"
                                                                   : std::string(DTypeName(plan.dtype));
  const auto keeps = [&](BlockFormat blocks) {
    if (blocks == BlockFormat::kNone || !KeepsBlocks(format)) return;
    plan.weight_dtype = std::string(InfoOf(blocks).name);
    plan.has_quantized_weights = true;
  };
  if (config.moe.has_value() && config.moe->layout == ExpertLayout::kStackedMxfp4) keeps(BlockFormat::kMxfp4);
  std::optional<Checkpoint> stored;
  if (options.load_format != LoadFormat::kDummy && IsGgufPath(options.model)) {
    absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(options.model);
    if (!checkpoint.ok()) return checkpoint.status();
    stored = *std::move(checkpoint);
    keeps(stored->MostBlocks());
  }
  plan.weight_bytes = WeightBytes(config, format, backend, stored.has_value() ? &*stored : nullptr);
  return absl::OkStatus();
}

// Few steps are filled up by more than a quarter, and there are some dozen graphs for any max_rows.
std::vector<int32_t> GraphRows(int32_t max_rows) {
  std::vector<int32_t> graph_rows;
  for (int32_t rows = 1; rows < max_rows; rows += rows < 8 ? rows : std::max(8, rows / 4 / 8 * 8))
    graph_rows.push_back(rows);
  graph_rows.push_back(max_rows);
  return graph_rows;
}

// The largest shapes of a step.
void PlanWorkspaces(const ModelConfig& config, const EngineOptions& options, const Backend& backend, MemoryPlan& plan) {
  plan.activation_shape = {
      .dtype = plan.dtype,
      .max_rows = std::min(options.max_num_batched_tokens, ChunkedPrefillSize(options, backend) + options.max_num_seqs),
      .max_head_rows = std::min(options.max_num_seqs, options.max_num_batched_tokens),
  };
  plan.workspace_shape = {
      .max_rows = plan.activation_shape.max_rows,
      .max_head_rows = plan.activation_shape.max_head_rows,
      .max_cols = MaxActivationCols(config),
      .vocab_size = config.vocab_size,
      .q_heads = config.q_heads,
      .kv_heads = config.kv_heads,
      .head_dim = config.head_dim,
      .max_context = plan.max_model_len,
      .max_sequences = options.max_num_seqs,
      .block_size = options.block_size,
      .num_kv_groups = static_cast<int32_t>(plan.kv.Windows().size()),
      .quantized_weights = plan.has_quantized_weights,
      .quantized_cache = options.kv_quantization != KvQuantization::kNone,
  };
  if (const auto& latent = config.latent) {
    plan.workspace_shape.kv_heads = 0;
    plan.workspace_shape.head_dim = 0;
    plan.workspace_shape.latent_heads = config.q_heads;
    plan.workspace_shape.latent_dim = latent->kv_rank;
    plan.workspace_shape.latent_rope_dim = latent->rope_dim;
    plan.workspace_shape.head_linear_dim = std::max({latent->kv_rank, latent->nope_dim, latent->v_dim});
  }
  if (const auto& moe = config.moe) {
    plan.workspace_shape.num_experts = moe->num_experts;
    plan.workspace_shape.experts_per_token = moe->top_k;
    plan.workspace_shape.hidden = config.hidden_size;
    plan.workspace_shape.expert_intermediate = moe->intermediate_size;
  }
  if (backend.has_graphs() && !options.enforce_eager) {
    // A node of a graph keeps its kernel's parameters, at most 4 KiB; a layer has fewer than 24 kernels.
    constexpr uint64_t kNodeBytes = 8192, kLayerNodes = 24;
    plan.graph_rows = GraphRows(static_cast<int32_t>(plan.activation_shape.max_head_rows));
    plan.graph_bytes = plan.graph_rows.size() * kNodeBytes * kLayerNodes * static_cast<uint64_t>(config.num_layers + 1);
    plan.lazy_graphs = options.lazy_graphs;
  }
  plan.workspace_bytes = Activations::Bytes(config, plan.activation_shape) +
                         Model::TableBytes(config, plan.max_model_len) + backend.WorkspaceBytes(plan.workspace_shape);
}

// What `cuda` has no kernels for is refused here, before anything is loaded.
absl::Status CheckCudaRuns(const ModelConfig& config, const EngineOptions& options) {
  const auto refuse = [&](absl::string_view found, absl::string_view allowed) {
    return absl::UnimplementedError(absl::StrCat("backend cuda: ", config.architecture, ": found ", found,
                                                 ", allowed: ", allowed, "; --backend cpu computes it"));
  };
  constexpr int32_t kMaxGroup = 64, kMaxHeadDim = 256;
  if (config.latent.has_value()) return refuse("latent attention", "MHA, MQA and GQA");
  if (config.moe.has_value()) return refuse("a mixture of experts", "dense MLPs");
  if (const int32_t group = config.q_heads / config.kv_heads; group > kMaxGroup)
    return refuse(absl::StrCat(group, " query heads for a KV head"), absl::StrCat("at most ", kMaxGroup));
  if (config.head_dim > kMaxHeadDim)
    return refuse(absl::StrCat("heads of ", config.head_dim, " dims"), absl::StrCat("at most ", kMaxHeadDim));
  if (options.quantization != BlockFormat::kNone)
    return refuse("--quantization", "none: weights in float32, bfloat16 and float16");
  return absl::OkStatus();
}

constexpr double kGpuMemoryUtilization = 0.92;
constexpr uint64_t kHostCacheBytes = uint64_t{1} << 30;

// Bytes for KV, as asked for or what the device has left. `plan` has dtype and kv.
absl::StatusOr<uint64_t> KvCacheBytes(const ModelConfig& config, const EngineOptions& options, const Backend& backend,
                                      MemoryPlan plan) {
  const std::optional<uint64_t> free_bytes = backend.FreeBytes();
  if (!free_bytes.has_value()) {
    if (options.gpu_memory_utilization.has_value()) {
      return absl::InvalidArgumentError(
          "--gpu-memory-utilization: is for backend cuda, which is not in use; --kv-cache-memory says how much here");
    }
    return options.kv_cache_bytes.value_or(kHostCacheBytes);
  }
  plan.max_model_len = options.max_model_len.value_or(config.max_position_embeddings);  // the largest that it can get
  PlanWorkspaces(config, options, backend, plan);
  const uint64_t weights = WeightBytes(config, plan.dtype, backend),
                 needed = weights + plan.workspace_bytes + plan.graph_bytes;
  const auto usable =
      static_cast<uint64_t>(options.gpu_memory_utilization.value_or(kGpuMemoryUtilization) * double(*free_bytes));
  const uint64_t cache = options.kv_cache_bytes.value_or(usable > needed ? usable - needed : 0);
  if (needed + cache <= (options.kv_cache_bytes.has_value() ? *free_bytes : usable) && cache > 0) return cache;
  return absl::ResourceExhaustedError(absl::StrCat(
      "device memory: needed ", needed + cache, " bytes (weights ", weights, ", workspaces ", plan.workspace_bytes,
      ", graphs ", plan.graph_bytes, ", KV cache ", cache, "), free ", *free_bytes,
      ", of which --gpu-memory-utilization takes ", usable, "; ",
      needed < usable
          ? absl::StrCat("--kv-cache-memory of at most ", usable - needed, " bytes fits")
          : std::string("a smaller --max-num-batched-tokens, --max-num-seqs, --max-model-len or model fits")));
}

}  // namespace

absl::StatusOr<MemoryPlan> MakeMemoryPlan(const ModelConfig& config, const EngineOptions& options,
                                          const Backend& backend) {
  if (absl::Status status = CheckFlags(options); !status.ok()) return status;
  if (backend.kind() == BackendKind::kCuda) {
    if (absl::Status status = CheckCudaRuns(config, options); !status.ok()) return status;
  }
  if (!backend.has_graphs() && (options.enforce_eager || options.lazy_graphs)) {
    return absl::InvalidArgumentError(absl::StrCat(options.enforce_eager ? "--enforce-eager" : "--lazy-graphs",
                                                   ": is for the CUDA graphs of backend cuda, which is not in use"));
  }
  MemoryPlan plan;
  plan.dtype = options.dtype.value_or(config.dtype);
  absl::StatusOr<KvCacheSpec> kv = CacheSpec(config, options, plan.dtype);
  if (!kv.ok()) return kv.status();
  plan.kv = *std::move(kv);
  const absl::StatusOr<uint64_t> cache_bytes = KvCacheBytes(config, options, backend, plan);
  if (!cache_bytes.ok()) return cache_bytes.status();
  const uint64_t num_blocks = plan.kv.BlocksIn(*cache_bytes);
  const auto min_blocks = static_cast<uint64_t>(plan.kv.BlocksFor(kMinModelLen));
  if (num_blocks < min_blocks) {
    return FlagError("--kv-cache-memory", absl::StrCat(*cache_bytes, " bytes"),
                     absl::StrCat("at least ", min_blocks * plan.kv.BytesPerBlock(), " bytes: one block of ",
                                  options.block_size, " tokens for each of ", min_blocks, " groups of layers"));
  }
  plan.num_blocks = static_cast<int32_t>(std::min<uint64_t>(num_blocks, BlockPool::kMaxBlocks));
  plan.kv_bytes = plan.num_blocks * plan.kv.BytesPerBlock();
  absl::StatusOr<int32_t> max_model_len = ModelLen(config, options, plan);
  if (!max_model_len.ok()) return max_model_len.status();
  plan.max_model_len = *max_model_len;
  if (absl::Status status = PlanWeights(config, options, backend, plan); !status.ok()) return status;
  if (backend.kind() == BackendKind::kCuda && plan.has_quantized_weights) {
    return absl::UnimplementedError(absl::StrCat("backend cuda: ", options.model, ": found weights in ",
                                                 plan.weight_dtype,
                                                 ", allowed: float32, bfloat16, float16; --backend cpu computes them"));
  }
  PlanWorkspaces(config, options, backend, plan);
  plan.scheduler = {
      .block_size = options.block_size,
      .num_blocks = plan.num_blocks,
      .max_num_seqs = options.max_num_seqs,
      .max_num_batched_tokens = options.max_num_batched_tokens,
      .run_ahead = backend.run_ahead(),
      .chunked_prefill_size = ChunkedPrefillSize(options, backend),
      .max_model_len = plan.max_model_len,
      .enable_prefix_caching = options.enable_prefix_caching,
      .kv_windows = plan.kv.Windows(),
      .policy = options.scheduling_policy,
      .priority_aging = options.priority_aging,
      .tenant_weights = options.tenant_weights,
      .max_tenants = options.max_tenants,
      .limits = {.max_waiting_tokens = options.max_waiting_tokens,
                 .max_waiting_requests_per_tenant = options.max_waiting_requests_per_tenant,
                 .max_waiting_tokens_per_tenant = options.max_waiting_tokens_per_tenant},
  };
  return plan;
}

}  // namespace quire
