#include "engine/load_model.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/backend_model_runner.h"
#include "engine/checkpoint.h"
#include "engine/gguf_model.h"
#include "engine/weights.h"
#include "kernels/backend.h"

namespace quire {
namespace {

absl::StatusOr<Weights> OpenWeights(const ModelConfig& config, DType dtype, const EngineOptions& options,
                                    Backend& backend, const LoadProgress& progress) {
  const WeightFormat format(dtype, options.quantization);
  if (options.load_format == LoadFormat::kDummy) return DummyWeights(config, format, options.seed, backend, progress);
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(options.model);
  if (!checkpoint.ok()) return checkpoint.status();
  if (absl::Status status = CheckTensors(config, *checkpoint); !status.ok()) return status;
  return LoadWeights(config, format, *checkpoint, backend, progress);
}

}  // namespace

absl::StatusOr<LoadedModel> LoadModel(const EngineOptions& options, const LoadModelProgress& progress) {
  absl::StatusOr<std::unique_ptr<Backend>> backend = CreateBackend(options.backend);
  if (!backend.ok()) return backend.status();
  return LoadModel(options, *std::move(backend), progress);
}

absl::StatusOr<LoadedModel> LoadModel(const EngineOptions& options, std::unique_ptr<Backend> backend,
                                      const LoadModelProgress& progress) {
  const bool is_file = IsGgufPath(options.model);
  if (options.load_format == (is_file ? LoadFormat::kSafetensors : LoadFormat::kGguf)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--load-format: found ", is_file ? "safetensors" : "gguf", " for ", options.model, ", which is a ",
        is_file ? "file" : "directory", "; allowed: ", is_file ? "auto, gguf, dummy" : "auto, safetensors, dummy"));
  }
  absl::StatusOr<ModelConfig> config = LoadModelConfig(options.model);
  if (!config.ok()) return config.status();
  absl::StatusOr<MemoryPlan> plan = MakeMemoryPlan(*config, options, *backend);
  if (!plan.ok()) return plan.status();
  const LoadProgress report = [&](uint64_t bytes) {
    if (progress) progress(bytes, plan->weight_bytes);
  };
  absl::StatusOr<Weights> weights = OpenWeights(*config, plan->dtype, options, *backend, report);
  if (!weights.ok()) return weights.status();

  LoadedModel loaded{
      .config = *config, .plan = *plan, .runner = nullptr, .backend_description = backend->Description()};
  absl::StatusOr<std::unique_ptr<BackendModelRunner>> runner =
      BackendModelRunner::Create(*config, *plan, *std::move(weights), std::move(backend));
  if (!runner.ok()) return runner.status();
  loaded.runner = *std::move(runner);
  return loaded;
}

}  // namespace quire
