// MemoryPlan: what memory goes where, from the config and the flags alone. `quired plan` prints it; the engine
// allocates by it.

#ifndef QUIRE_ENGINE_MEMORY_PLAN_H_
#define QUIRE_ENGINE_MEMORY_PLAN_H_

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/activations.h"
#include "engine/model_config.h"
#include "kernels/backend.h"
#include "kvcache/kv_cache_spec.h"
#include "scheduler/scheduler.h"

namespace quire {

enum class LoadFormat { kAuto, kSafetensors, kGguf, kDummy };

// The flags that shape the engine. Ranges are checked by MakeMemoryPlan.
struct EngineOptions {
  std::string model;  // directory, or one GGUF file
  LoadFormat load_format = LoadFormat::kAuto;
  BackendOptions backend;
  std::optional<DType> dtype;  // of weights and of activations entering a dot product; absent: the checkpoint's
  BlockFormat quantization = BlockFormat::kNone;  // of weights that are stored as numbers: kQ8_0, kQ4_0 or none
  std::optional<DType> kv_cache_dtype;            // absent: that of dtype
  KvQuantization kv_quantization = KvQuantization::kNone;  // else kv_cache_dtype is absent
  std::optional<int32_t> max_model_len;                    // tokens; absent: the model's, cut to what the cache holds
  int32_t block_size = 16;                                 // tokens
  // Absent: on a device what is free before loading, times gpu_memory_utilization, less all else; on a host 1 GiB.
  std::optional<uint64_t> kv_cache_bytes;
  std::optional<double> gpu_memory_utilization;  // (0, 1]; absent: 0.92. Of devices only.
  int32_t max_num_seqs = 128;
  bool enforce_eager = false;  // no graphs, where the backend has them
  bool lazy_graphs = false;    // each is made when it is first needed, not before the first request
  int32_t max_num_batched_tokens = 2048;
  std::optional<int32_t> chunked_prefill_size;  // tokens; absent: see MakeMemoryPlan
  int32_t max_waiting_requests = 1024;
  int64_t max_waiting_tokens = 4194304;
  bool enable_prefix_caching = true;
  SchedulingPolicy scheduling_policy = SchedulingPolicy::kFcfs;
  absl::Duration priority_aging = absl::Seconds(10);
  std::map<std::string, double> tenant_weights;
  int32_t max_tenants = 1024;
  int32_t max_waiting_requests_per_tenant = std::numeric_limits<int32_t>::max();
  int64_t max_waiting_tokens_per_tenant = std::numeric_limits<int64_t>::max();
  uint64_t seed = 0;  // of dummy weights
};

struct MemoryPlan {
  DType dtype = DType::kBFloat16;
  std::string weight_dtype;  // for people: dtype, "int8", "int4", or the format of most of a quantised file's bytes
  bool has_quantized_weights = false;
  KvCacheSpec kv;
  int32_t num_blocks = 0;
  int32_t max_model_len = 0;
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes = 0;         // num_blocks * kv.BytesPerBlock()
  uint64_t workspace_bytes = 0;  // activations, logits, rotary tables and the backend's scratch
  uint64_t graph_bytes = 0;      // of the graphs: an estimate
  // Rows of the steps that are replayed as graphs, increasing; a step of decodes is filled up to the next.
  std::vector<int32_t> graph_rows;
  bool lazy_graphs = false;
  ActivationShape activation_shape;
  WorkspaceShape workspace_shape;
  SchedulerOptions scheduler;
};

// INVALID_ARGUMENT in one line names the flag, what was found and what is allowed (a cache too small for one request of
// max_model_len tokens, a block size that is no multiple of 8, ...).
absl::StatusOr<MemoryPlan> MakeMemoryPlan(const ModelConfig& config, const EngineOptions& options,
                                          const Backend& backend);

}  // namespace quire

#endif  // QUIRE_ENGINE_MEMORY_PLAN_H_
